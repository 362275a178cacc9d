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
	// MaxEntries is EventBridge's limit for one request.
	// https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
	MaxEntries = 10
	// maxRequest is the size of a request in bytes, unless one entry alone is larger.
	// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html#eb-putevent-size
	maxRequest = 256 << 10

	// tryTimeout bounds one try of a request, callTimeout all of them.
	tryTimeout  = 5 * time.Second
	callTimeout = 20 * time.Second

	// checkInterval is how long the result of CheckExists counts.
	checkInterval = 15 * time.Minute
)

// Bus is one event bus. It is safe for concurrent use.
type Bus struct {
	client *eventbridge.Client
	name   string
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	arn     arn.ARN
	checked time.Time // when CheckExists last succeeded or was not allowed to look
}

// New returns the bus with this ARN, or with this name in the region of the settings.
func New(settings aws.Config, bus string, log *slog.Logger) *Bus {
	client := eventbridge.NewFromConfig(settings, func(o *eventbridge.Options) {
		if named, err := arn.Parse(bus); err == nil && named.Region != "" {
			o.Region = named.Region
		}
		client, ok := settings.HTTPClient.(*awshttp.BuildableClient) // such as one with its own authorities to trust
		if !ok {
			client = awshttp.NewBuildableClient()
		}
		o.HTTPClient = client.WithTimeout(tryTimeout)
	})
	full, err := arn.Parse(bus)
	if err != nil {
		full = arn.ARN{Partition: "aws", Service: "events", Region: settings.Region, Resource: "event-bus/" + bus}
	}
	return &Bus{client: client, name: bus, log: log, now: time.Now, arn: full}
}

// ARN returns the ARN of the bus. If New got a name, the account is missing until CheckExists has read it.
func (b *Bus) ARN() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.arn.String()
}

// CheckExists returns an error if the bus does not exist or the check fails. A success counts for 15 minutes. If
// access is denied, it warns and succeeds: buses of other accounts rarely allow the check.
func (b *Bus) CheckExists(ctx context.Context) error {
	if b.checkedRecently() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := b.client.DescribeEventBus(ctx, &eventbridge.DescribeEventBusInput{Name: &b.name})
	if _, missing := errors.AsType[*types.ResourceNotFoundException](err); missing {
		return fmt.Errorf("event bus %s does not exist in %s: create it, or correct EVENT_BUS and deploy; EventBridge would accept what is sent there and drop it", b.name, b.region())
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() == accessDenied {
		b.log.WarnContext(ctx, "events are sent without a check that the event bus exists: the permission events:DescribeEventBus is missing", telemetry.KeyBus, b.name)
		b.succeeded(nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("check event bus %s: %w", b.name, err)
	}
	b.succeeded(out.Arn)
	return nil
}

const accessDenied = "AccessDeniedException"

func (b *Bus) region() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.arn.Region
}

func (b *Bus) checkedRecently() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now().Before(b.checked.Add(checkInterval))
}

// succeeded records a successful check, and the ARN if it is known.
func (b *Bus) succeeded(full *string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.checked = b.now()
	if parsed, err := arn.Parse(aws.ToString(full)); err == nil && b.arn.AccountID == "" {
		b.arn = parsed
	}
}

// Send checks that the bus exists and sends the announcements. It returns the ids of those that EventBridge accepted,
// and the reasons for those that it refused. If there is an error, the state of all others is unknown.
func (b *Bus) Send(ctx context.Context, all []billing.Announcement) (accepted []string, refused map[string]string, err error) {
	if err := b.CheckExists(ctx); err != nil {
		return nil, nil, err
	}
	refused = map[string]string{}
	for rest := all; len(rest) > 0 && err == nil; {
		n := fitting(rest)
		var ids []string
		ids, err = b.put(ctx, rest[:n], refused)
		accepted, rest = append(accepted, ids...), rest[n:]
	}
	return accepted, refused, err
}

// fitting returns how many announcements fit into one request, at least one.
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

// size is the size of the entry as EventBridge counts it.
func size(a billing.Announcement) int {
	return len(billing.AnnouncementSource) + len(a.Type) + len(a.Detail)
}

// put sends one request. If EventBridge cannot parse it, put sends each entry alone.
func (b *Bus) put(ctx context.Context, all []billing.Announcement, refused map[string]string) (accepted []string, err error) {
	results, err := b.request(ctx, all)
	if err != nil && isUnreadable(err) {
		if len(all) == 1 {
			refused[all[0].ID] = err.Error()
			return nil, nil
		}
		for one := range slices.Chunk(all, 1) {
			ids, err := b.put(ctx, one, refused)
			accepted = append(accepted, ids...)
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

// request returns one result for each announcement, in order.
func (b *Bus) request(ctx context.Context, all []billing.Announcement) ([]types.PutEventsResultEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
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

// isUnreadable reports whether the error is about the entries, not the sender.
func isUnreadable(err error) bool {
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok && response.HTTPStatusCode() == http.StatusRequestEntityTooLarge {
		return true
	}
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains([]string{"ValidationException", "SerializationException", "InvalidParameterValue"}, cmp.Or(api.ErrorCode(), "unknown"))
}
