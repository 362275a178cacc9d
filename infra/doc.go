// Infra is the CDK app that deploys the subscription reconciliation: three functions, their
// queues, schedules, permissions, alarms and a dashboard, in one stack. Run it from the
// repository root; it synthesizes offline and looks nothing up:
//
//	CDK_OUTDIR=cdk.out go run ./infra
//
// What holds, and the tests hold it to:
//
//   - The VPC, its subnets, the security group and the secret exist already; the stack names
//     them and changes nothing about them. No secret's value is in the template.
//
//   - The same source and the same configuration give the same bytes.
//
//   - Each function has a role of its own, which may do what its code does and no more.
//
//   - A metric that an alarm or the dashboard reads is one that the functions write.
//
//   - Each alarm names a page in infra/runbooks, and each page belongs to an alarm.
//
//   - The policies in infra/policies suffice to deploy it.
//
// Decisions:
//
//   - Names are fixed, so that runbooks can give commands to copy, with STAGE in each of them, and the
//     region where a name counts in all regions: stages and regions live side by side in one account.
//   - The schedule starts a run through a queue, so that one that fails (the database is away at that
//     moment) is tried again every quarter of an hour for a day. A scheduled run's id is its scheduled
//     time and a manual one's comes from the request id: a second delivery opens nothing new.
//   - A scheduled run that failed for that long ends in one queue (failed-invocations) with what no
//     schedule could deliver. Ticks that fail are not tried again: the next one does the same.
//   - Queues and log groups go when the stack goes. What lasts is in the database.
package main
