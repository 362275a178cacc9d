package eventbus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/telemetry"
)

const (
	// MaxEntries is the most that EventBridge takes in one request.
	// https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
	MaxEntries = 10
	// maxRequest is how many bytes of entries a request has at most, unless one alone has more.
	// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html#eb-putevent-size
	maxRequest = 256 << 10

	// answerTime bounds one try of a request, callTime all of them.
	answerTime = 5 * time.Second
	callTime   = 20 * time.Second

	// lookEvery is for how long a bus that was seen counts as there.
	lookEvery = 15 * time.Minute
)

// Bus is one event bus. It is safe for use by several goroutines.
type Bus struct {
	client *eventbridge.Client
	name   string
	log    *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	arn  arn.ARN
	seen time.Time // when it was last known to exist
}

// New returns the bus with this name in the region of the settings, or with this ARN.
func New(settings aws.Config, bus string, log *slog.Logger) *Bus {
	client := eventbridge.NewFromConfig(settings, func(o *eventbridge.Options) {
		if named, err := arn.Parse(bus); err == nil && named.Region != "" {
			o.Region = named.Region
		}
		own, ok := settings.HTTPClient.(*awshttp.BuildableClient) // with the authorities to trust, say
		if !ok {
			own = awshttp.NewBuildableClient()
		}
		o.HTTPClient = own.WithTimeout(answerTime)
	})
	full, err := arn.Parse(bus)
	if err != nil {
		full = arn.ARN{Partition: "aws", Service: "events", Region: settings.Region, Resource: "event-bus/" + bus}
	}
	return &Bus{client: client, name: bus, log: log, now: time.Now, arn: full}
}

// ARN is that of the bus. Of one that was named by its name it lacks the account until it was looked at.
func (b *Bus) ARN() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.arn.String()
}

// Look returns an error where the bus does not exist, or where that cannot be found out; within 15 minutes after
// it was seen it is not looked at again. Who may not look, may send all the same: the bus of another account lets
// few look.
func (b *Bus) CheckExists(ctx context.Context) error {
	if b.seenLately() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	out, err := b.client.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: &b.name})
	if _, missing := errors.AsType[*types.ResourceNotFoundException](err); missing {
		return fmt.Errorf("event bus %s does not exist in %s: create it, or correct EVENT_BUS and deploy; EventBridge would accept what is sent there and drop it", b.name, b.region())
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() == accessDenied {
		b.log.WarnContext(ctx, "the event bus is sent to without a look whether it exists: the right to events:DescribeEventBus is lacking", telemetry.KeyBus, b.name)
		b.keep(nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at event bus %s: %w", b.name, err)
	}
	b.keep(out.Arn)
	return nil
}

const accessDenied = "AccessDeniedException"

func (b *Bus) region() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.arn.Region
}

func (b *Bus) seenLately() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now().Before(b.seen.Add(lookEvery))
}

// keep keeps that the bus is there, and its ARN where EventBridge told it.
func (b *Bus) keep(full *string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = b.now()
	if told, err := arn.Parse(aws.ToString(full)); err == nil && b.arn.AccountID == "" {
		b.arn = told
	}
}

// Send sends the announcements, to a bus that exists. It returns the ids of those that EventBridge accepted, and
// for those that it refused why. With an error, nothing is known of the others.
func (b *Bus) Send(ctx context.Context, all []billing.Announcement) (accepted []string, refused map[string]string, err error) {
	if err := b.CheckExists(ctx); err != nil {
		return nil, nil, err
	}
	refused = map[string]string{}
	for rest := all; len(rest) > 0 && err == nil; {
		n := fitting(rest)
		var taken []string
		taken, err = b.put(ctx, rest[:n], refused)
		accepted, rest = append(accepted, taken...), rest[n:]
	}
	return accepted, refused, err
}

// fitting returns how many of them, one at least, go into one request.
func fitting(all []billing.Announcement) int {
	n, bytes := 0, 0
	for _, a := range all[:min(len(all), MaxEntries)] {
		bytes += size(a)
		if n > 0 && bytes > maxRequest {
			break
		}
		n++
	}
	return n
}

// size is that of the entry, as EventBridge counts it.
func size(a billing.Announcement) int {
	return len(billing.AnnouncementSource) + len(a.Type) + len(a.Detail)
}

// put sends one request. Where EventBridge cannot read it, each entry is sent alone.
func (b *Bus) put(ctx context.Context, all []billing.Announcement, refused map[string]string) (accepted []string, err error) {
	results, err := b.request(ctx, all)
	if err != nil && isUnreadable(err) {
		if len(all) == 1 {
			refused[all[0].ID] = err.Error()
			return nil, nil
		}
		for one := range slices.Chunk(all, 1) {
			taken, err := b.put(ctx, one, refused)
			accepted = append(accepted, taken...)
			if err != nil {
				return accepted, err
			}
		}
		return accepted, nil
	}
	if err != nil {
		return nil, fmt.Errorf("send to event bus %s: %w", b.name, err)
	}
	for i, result := range results {
		if result.ErrorCode != nil {
			refused[all[i].ID] = aws.ToString(result.ErrorCode) + ": " + aws.ToString(result.ErrorMessage)
			continue
		}
		accepted = append(accepted, all[i].ID)
	}
	return accepted, nil
}

// request returns one result for each entry, in their order.
func (b *Bus) request(ctx context.Context, all []billing.Announcement) ([]types.PutEventsResultEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	entries := make([]types.PutEventsRequestEntry, len(all))
	for i, a := range all {
		entries[i] = types.PutEventsRequestEntry{
			EventBusName: &b.name, Source: aws.String(billing.AnnouncementSource), DetailType: aws.String(string(a.Type)), Detail: aws.String(string(a.Detail)),
		}
	}
	out, err := b.client.PutEvents(ctx, &eventbridge.PutEventsInput{Entries: entries})
	if err != nil {
		return nil, err
	}
	if len(out.Entries) != len(all) {
		return nil, fmt.Errorf("EventBridge answered for %d of %d events", len(out.Entries), len(all))
	}
	return out.Entries, nil
}

// isUnreadable reports whether something about the entries, and not about who sends them, is wrong.
func isUnreadable(err error) bool {
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); ok && answer.HTTPStatusCode() == http.StatusRequestEntityTooLarge {
		return true
	}
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains([]string{"ValidationException", "SerializationException", "InvalidParameterValue"}, cmp.Or(api.ErrorCode(), "unknown"))
}
