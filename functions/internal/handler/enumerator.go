package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/pipeline"
)

// Enumerator handles the event that starts or resumes a run. The resume-tick schedule and operators invoke the function
// with it directly. The run schedules send it through an SQS queue, as the body of a message ({"Records": [...]}). It
// is a JSON object with these keys, all optional:
//
//	scheduledFor    an RFC 3339 time, the id of a scheduled run; not with resume
//	orgId           the only organization of the run; not with strategy "events"
//	dryRun          true or false
//	strategy        "sweep", "retrieve" or "events"; with orgId it is always "retrieve"
//	since           an RFC 3339 time, where a catch-up begins; only with strategy "events", not with resume
//	resume          true (every run whose enumeration was interrupted; no other key but "by") or the id of a run
//	allowDowngrade  true or false; only with orgId
//	by              who asks; kept with a new run
//
// With the id of a run, dryRun, orgId, strategy and allowDowngrade must not contradict the run's settings.
// An unknown key and an empty id are refused: if they were ignored, the run would be over all organizations.
type Enumerator struct {
	Enumerator *pipeline.Enumerator
}

type enumeratorEvent struct {
	ScheduledFor time.Time        `json:"scheduledFor"`
	OrgID        orgID            `json:"orgId"`
	DryRun       bool             `json:"dryRun"`
	Strategy     billing.Strategy `json:"strategy"`
	Since        time.Time        `json:"since"`
	Resume       resume           `json:"resume"`
	// AllowDowngrade lets the run lower the organization's access although another run withholds that change.
	AllowDowngrade bool   `json:"allowDowngrade"`
	By             string `json:"by"` // who starts the run; stored with it
}

type orgID string

func (o *orgID) UnmarshalJSON(b []byte) error {
	*o = "" // the key may be repeated
	if err := json.Unmarshal(b, (*string)(o)); err != nil || strings.TrimSpace(string(*o)) == "" {
		return errors.New(`"orgId" must be the id of an organization; leave it out for all`)
	}
	return nil
}

// resume is true (every run whose enumeration was interrupted) or the id of a run.
type resume struct {
	all bool
	run string
}

func (r *resume) UnmarshalJSON(b []byte) error {
	*r = resume{} // the key may be repeated
	if json.Unmarshal(b, &r.all) == nil && r.all {
		return nil
	}
	if err := json.Unmarshal(b, &r.run); err != nil || r.run == "" {
		return errors.New(`"resume" must be true or the id of a run`)
	}
	return nil
}

// Invoke is the Lambda handler. It returns the reason as Lambda's errorType, so that the invoker can tell an
// unknown organization from an invalid event, for example.
func (h Enumerator) Invoke(ctx context.Context, raw json.RawMessage) (pipeline.Enumeration, error) {
	result, err := h.Handle(ctx, raw)
	logError(ctx, h.Enumerator.Log, err)
	if err != nil {
		return result, messages.InvokeResponse_Error{Type: string(billing.AsFailure(err).Reason), Message: err.Error()}
	}
	return result, nil
}

// Handle takes the event, or an SQS batch of messages that have it as body.
func (h Enumerator) Handle(ctx context.Context, raw json.RawMessage) (pipeline.Enumeration, error) {
	var batch struct {
		Records records `json:"Records"`
	}
	if decodeStrictly(raw, &batch) == nil && len(batch.Records) > 0 {
		return h.handleRecords(ctx, batch.Records)
	}
	requestID := ""
	if invocation, ok := lambdacontext.FromContext(ctx); ok {
		requestID = invocation.AwsRequestID
	}
	return h.run(ctx, raw, requestID)
}

// handleRecords handles the messages of the queue of scheduled runs, whose batches have one message. After an error SQS
// delivers the message again, and that invocation has another request id. The message's id is used instead, so the
// second delivery finds the same run.
func (h Enumerator) handleRecords(ctx context.Context, delivered records) (last pipeline.Enumeration, err error) {
	for _, m := range delivered {
		if last, err = h.run(ctx, json.RawMessage(m.Body), m.MessageId); err != nil {
			return last, err
		}
	}
	return last, nil
}

func (h Enumerator) run(ctx context.Context, event json.RawMessage, requestID string) (pipeline.Enumeration, error) {
	req, err := enumeratorRequest(event, h.Enumerator.Now())
	if err != nil {
		return pipeline.Enumeration{}, fmt.Errorf("the event is refused, nothing was started: %w", err)
	}
	req.RequestID = requestID
	return h.Enumerator.Run(ctx, req)
}

func enumeratorRequest(raw json.RawMessage, now time.Time) (pipeline.Request, error) {
	var e enumeratorEvent
	if err := decodeStrictly(raw, &e); err != nil {
		return pipeline.Request{}, err
	}
	if e.Strategy != "" && !slices.Contains(billing.Strategies(), e.Strategy) {
		return pipeline.Request{}, fmt.Errorf("unknown strategy %q; use one of %q", e.Strategy, billing.Strategies())
	}
	if err := e.checkCatchUp(now); err != nil {
		return pipeline.Request{}, err
	}
	if e.Resume.run != "" && !e.ScheduledFor.IsZero() {
		return pipeline.Request{}, errors.New(`a resumed run keeps its "scheduledFor"; leave it out`)
	}
	if e.AllowDowngrade && e.OrgID == "" {
		return pipeline.Request{}, errors.New(`"allowDowngrade" is for a run over one organization: "orgId" must name it`)
	}
	return pipeline.Request{
		AllowDowngrade: e.AllowDowngrade, By: e.By,
		ScheduledFor: e.ScheduledFor, OrgID: string(e.OrgID), DryRun: e.DryRun, Strategy: e.Strategy, Since: e.Since,
		ResumeAll: e.Resume.all, ResumeRun: e.Resume.run,
	}, nil
}

// refuseNull refuses keys whose value is null: {"dryRun": null} would start a run that writes.
func refuseNull(raw json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	var keys map[string]json.RawMessage
	if err := d.Decode(&keys); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if string(keys[key]) == "null" {
			return fmt.Errorf("%q is null: give it a value or leave it out", key)
		}
	}
	return nil
}

// checkCatchUp checks the keys of a catch-up: which may be combined, and that since is not in the future.
func (e enumeratorEvent) checkCatchUp(now time.Time) error {
	events := e.Strategy == billing.StrategyEvents
	switch {
	case events && e.OrgID != "":
		return errors.New(`a catch-up ("strategy": "events") takes no "orgId"; leave out one of the two`)
	case e.Since.IsZero():
		return nil
	case !events:
		return errors.New(`"since" is the start of a catch-up; add "strategy": "events"`)
	case e.Resume != resume{}:
		return errors.New(`a resumed run keeps its "since"; leave it out`)
	case e.Since.After(now):
		return fmt.Errorf(`"since" is %s, which is in the future`, e.Since.Format(time.RFC3339))
	default:
		return nil
	}
}

// decodeStrictly decodes one JSON object without unknown keys. It refuses null in place of the object, which would
// decode as {}, and as the value of a key.
func decodeStrictly(raw json.RawMessage, into any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(raw, " \t\r\n"), []byte("{")) {
		return errors.New("it is not a JSON object")
	}
	if err := refuseNull(raw); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("unexpected data after the JSON object")
	}
	return nil
}
