package eventbus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pixell-global/subscription-reconciliation/shared/billing"
	"github.com/pixell-global/subscription-reconciliation/shared/eventbus"
	"github.com/pixell-global/subscription-reconciliation/shared/localaws/eventserver"
)

const busName = "application"

var quiet = slog.New(slog.DiscardHandler)

// checkedBus returns a bus after CheckExists.
func checkedBus(t *testing.T, server *eventserver.Server) *eventbus.Bus {
	t.Helper()
	bus := eventbus.New(server.AWSConfig(), busName, quiet)
	if err := bus.CheckExists(t.Context()); err != nil {
		t.Fatal(err)
	}
	return bus
}

func startServer(t *testing.T) *eventserver.Server {
	t.Helper()
	server, err := eventserver.Start(eventserver.Options{Buses: []string{busName}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func announcement(id string, padding int) billing.Announcement {
	return billing.Announcement{
		ID: id, Type: billing.AnnounceReconciled, Detail: fmt.Appendf(nil, `{"id":%q,"padding":%q}`, id, strings.Repeat("x", padding)),
	}
}

func numbered(n int) (all []billing.Announcement, ids []string) {
	for i := range n {
		id := fmt.Sprintf("id-%02d", i)
		all, ids = append(all, announcement(id, 0)), append(ids, id)
	}
	return all, ids
}

// arrived returns the ids of the server's events, in order.
func arrived(t *testing.T, server *eventserver.Server) []string {
	t.Helper()
	var ids []string
	for _, e := range server.Events() {
		if e.Source != "subscription-reconciliation" || e.DetailType != "Organization Reconciled" {
			t.Errorf("%+v", e)
		}
		ids = append(ids, strings.Split(string(e.Detail), `"`)[3])
	}
	return ids
}

func TestAnnouncementsAreSentInRequestsOfTen(t *testing.T) {
	for name, named := range map[string]string{"a name": busName, "an ARN": "arn:aws:events:eu-west-1:000000000000:event-bus/" + busName} {
		t.Run("to "+name, func(t *testing.T) {
			server := startServer(t)
			all, ids := numbered(25)
			accepted, refused, err := eventbus.New(server.AWSConfig(), named, quiet).Send(t.Context(), all)
			if err != nil || len(refused) > 0 {
				t.Fatal(refused, err)
			}
			if diff := cmp.Diff(ids, accepted); diff != "" {
				t.Errorf("accepted (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(ids, arrived(t, server)); diff != "" {
				t.Errorf("arrived (-want +got):\n%s", diff)
			}
			if n := server.PutRequests(); n != 3 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestLargeAnnouncementsAreSentAlone(t *testing.T) {
	server := startServer(t)
	all := []billing.Announcement{
		announcement("id-0", 100_000), announcement("id-1", 100_000), announcement("id-2", 100_000), // two fit
		announcement("id-3", 900_000), announcement("id-4", 10),
		announcement("id-5", 1_200_000), // larger than a request may be
		announcement("id-6", 10),
	}
	accepted, refused, err := eventbus.New(server.AWSConfig(), busName, quiet).Send(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"id-0", "id-1", "id-2", "id-3", "id-4", "id-6"}
	if !slices.Equal(accepted, want) || !slices.Equal(arrived(t, server), want) {
		t.Errorf("accepted %v, arrived %v", accepted, arrived(t, server))
	}
	if len(refused) != 1 || !strings.Contains(refused["id-5"], "size") {
		t.Errorf("refused: %v", refused)
	}
	if n := server.PutRequests(); n != 6 {
		t.Errorf("%d requests", n)
	}
}

func TestUnreadableEntryIsRefusedAlone(t *testing.T) {
	server := startServer(t)
	all, _ := numbered(4)
	all[1].Detail = []byte(`"no object"`)
	all[2].Detail = []byte(``)
	server.SetFailEntry(func(e eventserver.Entry) string {
		if strings.Contains(e.Detail, "id-03") {
			return "ThrottlingException"
		}
		return ""
	})
	bus := eventbus.New(server.AWSConfig(), busName, quiet)
	accepted, refused, err := bus.Send(t.Context(), all)
	if err != nil || !slices.Equal(accepted, []string{"id-00"}) {
		t.Errorf("accepted %v, %v", accepted, err)
	}
	if len(refused) != 3 || !strings.HasPrefix(refused["id-01"], "MalformedDetail: ") || !strings.HasPrefix(refused["id-02"], "InvalidArgument: ") || !strings.HasPrefix(refused["id-03"], "ThrottlingException: ") {
		t.Errorf("refused: %v", refused)
	}
	accepted, refused, err = bus.Send(t.Context(), all[1:3]) // a request that is refused as a whole
	if err != nil || len(accepted) > 0 || len(refused) != 2 {
		t.Errorf("accepted %v, refused %v, %v", accepted, refused, err)
	}
}

func TestTransientFailureIsRetried(t *testing.T) {
	for name, fault := range map[string]eventserver.Fault{
		"an internal error": eventserver.InternalException, "throttling": eventserver.Throttled, "a lost connection": eventserver.Dropped, "a lost response": eventserver.LostResponse,
	} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t)
			bus := checkedBus(t, server)
			var asked atomic.Int64
			server.SetFail(func() *eventserver.Fault {
				if asked.Add(1) == 1 {
					return &fault
				}
				return nil
			})
			all, ids := numbered(3)
			accepted, refused, err := bus.Send(t.Context(), all)
			if err != nil || len(refused) > 0 || !slices.Equal(accepted, ids) {
				t.Errorf("accepted %v, refused %v, %v", accepted, refused, err)
			}
			want := ids
			if fault.After {
				want = slices.Concat(ids, ids) // at least once
			}
			if diff := cmp.Diff(want, arrived(t, server)); diff != "" {
				t.Errorf("arrived (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailedRequestReportsNeitherAcceptedNorRefused(t *testing.T) {
	for name, fault := range map[string]eventserver.Fault{
		"an internal error": eventserver.InternalException, "no permission": eventserver.AccessDenied, "a lost response": eventserver.LostResponse,
	} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t)
			bus := checkedBus(t, server)
			var asked atomic.Int64
			server.SetFail(func() *eventserver.Fault {
				if asked.Add(1) > 1 { // the first request is accepted
					return &fault
				}
				return nil
			})
			all, ids := numbered(15)
			accepted, refused, err := bus.Send(t.Context(), all)
			if err == nil || !strings.Contains(err.Error(), "event bus application") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error: %v", err)
			}
			if !slices.Equal(accepted, ids[:10]) || len(refused) > 0 {
				t.Errorf("accepted %v, refused %v", accepted, refused)
			}
		})
	}
}

func TestHangingRequestEndsWithTheContext(t *testing.T) {
	server := startServer(t)
	bus := checkedBus(t, server)
	server.SetFail(func() *eventserver.Fault { return &eventserver.Hanging })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	all, _ := numbered(1)
	accepted, refused, err := bus.Send(ctx, all)
	if !errors.Is(err, context.DeadlineExceeded) || len(accepted)+len(refused) > 0 {
		t.Errorf("accepted %v, refused %v, %v", accepted, refused, err)
	}
}

// EventBridge accepts what is sent to a bus that does not exist, and drops it.
func TestNothingIsSentToABusThatDoesNotExist(t *testing.T) {
	server := startServer(t)
	all, ids := numbered(3)
	bus := eventbus.New(server.AWSConfig(), "applications", quiet)
	accepted, refused, err := bus.Send(t.Context(), all)
	if err == nil || !strings.Contains(err.Error(), "event bus applications does not exist in us-east-1: create it, or correct EVENT_BUS") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error: %v", err)
	}
	if len(accepted)+len(refused) > 0 || server.PutRequests() != 0 {
		t.Errorf("accepted %v, refused %v, %d requests", accepted, refused, server.PutRequests())
	}
	server.SetBuses("applications")
	if accepted, _, err = bus.Send(t.Context(), all); err != nil || !slices.Equal(accepted, ids) || len(server.Events()) != 3 {
		t.Errorf("once it is there: accepted %v, %v", accepted, err)
	}
}

func TestBusIsCheckedEveryFifteenMinutes(t *testing.T) {
	server := startServer(t)
	all, _ := numbered(1)
	bus := eventbus.New(server.AWSConfig(), busName, quiet)
	now := time.Now()
	bus.SetClock(func() time.Time { return now })
	for range 3 {
		if _, _, err := bus.Send(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	if n := server.DescribeRequests(); n != 1 {
		t.Errorf("looked at %d times", n)
	}
	server.SetBuses()
	now = now.Add(15 * time.Minute)
	if accepted, _, err := bus.Send(t.Context(), all); err == nil || len(accepted) > 0 {
		t.Errorf("deleted, and it accepts %v", accepted)
	}
}

func TestSendWarnsWithoutThePermissionToCheck(t *testing.T) {
	server := startServer(t)
	var asked atomic.Int64
	server.SetFail(func() *eventserver.Fault {
		if asked.Add(1) == 1 {
			return &eventserver.AccessDenied
		}
		return nil
	})
	var said strings.Builder
	all, ids := numbered(1)
	accepted, _, err := eventbus.New(server.AWSConfig(), busName, slog.New(slog.NewTextHandler(&said, nil))).Send(t.Context(), all)
	if err != nil || !slices.Equal(accepted, ids) {
		t.Errorf("accepted %v, %v", accepted, err)
	}
	if !strings.Contains(said.String(), "events:DescribeEventBus") || strings.Count(said.String(), "\n") != 1 {
		t.Errorf("said %q", said.String())
	}
}

func TestNothingIsSentIfTheCheckFails(t *testing.T) {
	server := startServer(t)
	server.SetFail(func() *eventserver.Fault { return &eventserver.InternalException })
	all, _ := numbered(1)
	accepted, refused, err := eventbus.New(server.AWSConfig(), busName, quiet).Send(t.Context(), all)
	if err == nil || !strings.Contains(err.Error(), "check event bus application") || len(accepted)+len(refused) > 0 || server.PutRequests() != 0 {
		t.Errorf("accepted %v, refused %v, %v", accepted, refused, err)
	}
}

func TestARNHasTheAccountAfterTheCheck(t *testing.T) {
	server := startServer(t)
	bus := eventbus.New(server.AWSConfig(), busName, quiet)
	if got := bus.ARN(); got != "arn:aws:events:us-east-1::event-bus/application" {
		t.Errorf("before the check: %s", got)
	}
	if err := bus.CheckExists(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := bus.ARN(); got != "arn:aws:events:us-east-1:000000000000:event-bus/application" {
		t.Errorf("after the check: %s", got)
	}
	const foreign = "arn:aws:events:eu-central-1:123456789012:event-bus/application"
	if got := eventbus.New(server.AWSConfig(), foreign, quiet).ARN(); got != foreign {
		t.Errorf("given as an ARN: %s", got)
	}
}
