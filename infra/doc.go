// Infra is the CDK app that deploys the subscription reconciliation: three functions, their
// queues, schedules, permissions, alarms and a dashboard, in one stack. Run it from the
// repository root; it synthesizes offline and looks nothing up:
//
//	CDK_OUTDIR=cdk.out go run ./infra
//
// Guarantees, which tests check:
//
//   - The VPC, its subnets, the security group and the secret exist already; the stack uses
//     them and does not change them. No secret's value is in the template.
//
//   - The same source and the same configuration give the same bytes.
//
//   - Each function has a separate role, which allows only what its code does.
//
//   - The functions write every metric that an alarm or the dashboard reads.
//
//   - Each alarm names a page in infra/runbooks, and each page belongs to an alarm.
//
//   - The policies in infra/policies are enough to deploy it.
//
// Decisions:
//
//   - Names are fixed, so that runbooks can give commands to copy. Each name has the STAGE, and the
//     region if it must be unique over all regions, so stages and regions can share an account.
//   - The schedule starts a run through a queue. If the run fails, because the database is down at
//     that moment for example, it is tried again every 15 minutes for a day. A scheduled run's id is
//     its scheduled time and a manual run's id comes from the request id, so a second delivery starts
//     no second run.
//   - After that day the run's event goes to the queue failed-invocations, like the events that a
//     schedule could not deliver. A tick that fails is not tried again: the next one does the same.
//   - Queues and log groups are deleted with the stack. Everything lasting is in the database.
package main
