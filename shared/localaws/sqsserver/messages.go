package sqsserver

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	maxBatchEntries = 10
	maxDelay        = 900   // seconds
	maxWait         = 20    // seconds
	maxReceive      = 10    // messages of one receive
	maxTimeout      = 43200 // seconds of visibility

	// senderID is the made-up IAM user that sends every message.
	senderID = "AIDALOCALSQSSERVER001"
)

type sendMessageInput struct {
	QueueURL          string `json:"QueueUrl"`
	MessageBody       string
	DelaySeconds      *int
	MessageAttributes messageAttributes
}

type sendMessageOutput struct {
	MessageID              string `json:"MessageId"`
	MD5OfMessageBody       string
	MD5OfMessageAttributes string `json:",omitempty"`
}

// size of a message as quotas count it: body and attributes.
func (in *sendMessageInput) size() int { return len(in.MessageBody) + in.MessageAttributes.size() }

func (s *Server) sendMessage(q *queue, in *sendMessageInput) (any, error) {
	m, err := s.send(q, in)
	if err != nil {
		return nil, err
	}
	return m.sent(), nil
}

func (m *message) sent() sendMessageOutput {
	return sendMessageOutput{
		MessageID:              m.id,
		MD5OfMessageBody:       m.md5,
		MD5OfMessageAttributes: m.attributes.md5(),
	}
}

// send checks one message and puts it into the queue. The caller holds the
// lock.
func (s *Server) send(q *queue, in *sendMessageInput) (*message, error) {
	if in.MessageBody == "" {
		return nil, missingParameter("MessageBody")
	}
	if !validText(in.MessageBody) {
		return nil, errInvalidContents()
	}
	if err := in.MessageAttributes.check(); err != nil {
		return nil, err
	}
	if in.size() > q.attributes.maxSize {
		return nil, invalidParameter("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", q.attributes.maxSize)
	}
	delay := q.attributes.delay
	if in.DelaySeconds != nil {
		if *in.DelaySeconds < 0 || *in.DelaySeconds > maxDelay {
			return nil, invalidParameter("Value %d for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= %d.", *in.DelaySeconds, maxDelay)
		}
		delay = time.Duration(*in.DelaySeconds) * time.Second
	}

	now := s.clock.Now()
	q.advance(now)
	m := &message{
		id:         uuid.NewString(),
		body:       in.MessageBody,
		md5:        hexMD5([]byte(in.MessageBody)),
		attributes: in.MessageAttributes,
		sentAt:     now,
		arrival:    s.nextArrival(),
	}
	if delay > 0 {
		q.add(m, delayed, now.Add(delay))
		return m, nil
	}
	q.add(m, ready, now)
	return m, nil
}

func (s *Server) nextArrival() uint64 {
	s.arrivals++
	return s.arrivals
}

// batchFailure is a failed entry of a batch.
type batchFailure struct {
	ID          string `json:"Id"`
	Code        string
	Message     string `json:",omitempty"`
	SenderFault bool
}

func failed(id string, e *apiError) batchFailure {
	return batchFailure{ID: id, Code: errorCode(e), Message: e.message, SenderFault: e.senderFault()}
}

var entryID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

// checkBatch applies the rules of every batch action. kind is the
// entry's name in the API.
func checkBatch(kind string, ids []string) error {
	if len(ids) == 0 {
		return errEmptyBatch(kind)
	}
	if len(ids) > maxBatchEntries {
		return errTooManyEntries(len(ids))
	}
	for i, id := range ids {
		if !entryID.MatchString(id) {
			return errBatchEntryID()
		}
		if slices.Contains(ids[:i], id) {
			return errEntryIDsNotDistinct(id)
		}
	}
	return nil
}

type sendMessageBatchInput struct {
	QueueURL string `json:"QueueUrl"`
	Entries  []struct {
		ID string `json:"Id"`
		sendMessageInput
	}
}

type sendMessageBatchOutput struct {
	Successful []sentEntry    `json:",omitempty"`
	Failed     []batchFailure `json:",omitempty"`
}

type sentEntry struct {
	ID string `json:"Id"`
	sendMessageOutput
}

func (s *Server) sendMessageBatch(_ request, in *sendMessageBatchInput) (any, error) {
	var ids []string
	size := 0
	for _, e := range in.Entries {
		ids = append(ids, e.ID)
		size += e.size()
	}
	if err := checkBatch("SendMessageBatchRequestEntry", ids); err != nil {
		return nil, err
	}
	if size > maxRequestSize {
		return nil, errBatchTooLong(size)
	}

	var out sendMessageBatchOutput
	err := s.eachEntry("SendMessageBatch", in.QueueURL, ids,
		func(i int) string { return in.Entries[i].MessageBody },
		func(q *queue, i int) error {
			m, err := s.send(q, &in.Entries[i].sendMessageInput)
			if err != nil {
				return err
			}
			out.Successful = append(out.Successful, sentEntry{in.Entries[i].ID, m.sent()})
			return nil
		},
		func(f batchFailure) { out.Failed = append(out.Failed, f) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// eachEntry handles the entries of a batch, except those that the test's hook
// fails, and reports the failed ones. An error is that of the whole
// batch.
func (s *Server) eachEntry(action, queueURL string, ids []string, body func(i int) string, do func(q *queue, i int) error, fail func(batchFailure)) error {
	name := queueURL[strings.LastIndexByte(queueURL, '/')+1:]
	faults := make([]*apiError, len(ids))
	for i, id := range ids {
		faults[i] = s.entryFault(Entry{Action: action, Queue: name, ID: id, Body: body(i)})
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.queueByURL(queueURL)
	if err != nil {
		return err
	}
	for i, id := range ids {
		if faults[i] != nil {
			fail(failed(id, faults[i]))
			continue
		}
		if err := do(q, i); err != nil {
			fail(failed(id, asAPIError(err)))
		}
	}
	return nil
}

func noBody(int) string { return "" }

type receiveMessageInput struct {
	QueueURL                    string `json:"QueueUrl"`
	MaxNumberOfMessages         *int
	VisibilityTimeout           *int
	WaitTimeSeconds             *int
	AttributeNames              []string
	MessageSystemAttributeNames []string
	MessageAttributeNames       []string
}

type receiveMessageOutput struct {
	Messages []receivedMessage `json:",omitempty"`
}

type receivedMessage struct {
	MessageID              string `json:"MessageId"`
	ReceiptHandle          string
	Body                   string
	MD5OfBody              string
	Attributes             map[string]string `json:",omitempty"`
	MD5OfMessageAttributes string            `json:",omitempty"`
	MessageAttributes      messageAttributes `json:",omitempty"`
}

// systemAttributes are the names that a receive may ask for. Those of FIFO
// queues and the trace header are valid but never have a value here.
var systemAttributes = []string{
	"All", "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp",
	"SequenceNumber", "MessageDeduplicationId", "MessageGroupId", "AWSTraceHeader", "DeadLetterQueueSourceArn",
}

func (in *receiveMessageInput) check() error {
	if n := in.MaxNumberOfMessages; n != nil && (*n < 1 || *n > maxReceive) {
		return invalidParameter("Value %d for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and %d, if provided.", *n, maxReceive)
	}
	if n := in.WaitTimeSeconds; n != nil && (*n < 0 || *n > maxWait) {
		return invalidParameter("Value %d for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= %d, if provided.", *n, maxWait)
	}
	if n := in.VisibilityTimeout; n != nil && (*n < 0 || *n > maxTimeout) {
		return errVisibility(*n)
	}
	for _, name := range slices.Concat(in.AttributeNames, in.MessageSystemAttributeNames) {
		if !slices.Contains(systemAttributes, name) {
			return errUnknownAttribute(name)
		}
	}
	return nil
}

func errVisibility(n int) error {
	return invalidParameter("Value %d for parameter VisibilityTimeout is invalid. Reason: VisibilityTimeout must be an integer between 0 and %d.", n, maxTimeout)
}

func (s *Server) receiveMessage(r request, in *receiveMessageInput) (any, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	var until time.Time
	for {
		out, wait, err := s.tryReceive(in, &until)
		if err != nil {
			return nil, err
		}
		if wait == nil {
			return out, nil
		}
		if !wait(r.ctx.Done()) { // the client is gone, or the server closes
			return receiveMessageOutput{}, nil
		}
	}
}

// tryReceive receives once. If there is no message and the long poll continues,
// it returns a function that waits until a message may be there. until is
// the end of the poll, set by the first call.
func (s *Server) tryReceive(in *receiveMessageInput, until *time.Time) (receiveMessageOutput, func(gone <-chan struct{}) bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.queueByURL(in.QueueURL)
	if err != nil {
		return receiveMessageOutput{}, nil, err
	}
	now := s.clock.Now()
	if until.IsZero() {
		*until = now.Add(secondsOr(in.WaitTimeSeconds, q.attributes.wait))
	}
	q.advance(now)
	messages, err := s.receive(q, in, now)
	if err != nil {
		return receiveMessageOutput{}, nil, err
	}
	if len(messages) > 0 || !now.Before(*until) {
		return receiveMessageOutput{messages}, nil, nil
	}
	look := *until
	if next, ok := q.nextChange(); ok && next.Before(look) {
		look = next
	}
	return receiveMessageOutput{}, s.waiter(q.waiting(), look.Sub(now)), nil
}

// waiter returns a function that waits until changed closes or d has passed.
// It returns false if gone or the server closes first.
func (s *Server) waiter(changed <-chan struct{}, d time.Duration) func(gone <-chan struct{}) bool {
	due := make(chan struct{})
	stop := s.clock.AfterFunc(d, func() { close(due) })
	return func(gone <-chan struct{}) bool {
		defer stop()
		select {
		case <-changed:
			return true
		case <-due:
			return true
		case <-gone:
			return false
		case <-s.closing:
			return false
		}
	}
}

func secondsOr(n *int, or time.Duration) time.Duration {
	if n == nil {
		return or
	}
	return time.Duration(*n) * time.Second
}

// receive returns ready messages, and moves those that were received too
// often to the dead-letter queue. The caller holds the lock.
func (s *Server) receive(q *queue, in *receiveMessageInput, now time.Time) ([]receivedMessage, error) {
	limit := 1
	if in.MaxNumberOfMessages != nil {
		limit = *in.MaxNumberOfMessages
	}
	timeout := secondsOr(in.VisibilityTimeout, q.attributes.visibility)
	if q.inFlightCount >= maxInFlight && q.ready.Len() > 0 {
		return nil, errOverLimit()
	}

	var out []receivedMessage
	var again []*message // received, but visible to the next receive
	for len(out) < limit && q.ready.Len() > 0 {
		m := q.ready.items[0]
		if s.deadLetter(q, m, now) {
			continue
		}
		if m.receives == 0 {
			m.firstReceived = now
		}
		m.receives++
		m.queueReceives++
		m.receivedAt = now
		q.move(m, inFlight, now.Add(timeout))
		out = append(out, m.received(q, in))
		if m.duplicates > 0 {
			m.duplicates--
			again = append(again, m)
		} else if timeout == 0 {
			again = append(again, m)
		}
	}
	for _, m := range again {
		q.move(m, ready, now)
	}
	return out, nil
}

// deadLetter moves a message that was received maxReceiveCount times. It reports whether it
// did. The caller holds the lock.
func (s *Server) deadLetter(q *queue, m *message, now time.Time) bool {
	policy := q.attributes.redrive
	if policy == nil || m.queueReceives < policy.maxReceiveCount {
		return false
	}
	target := s.queueByARN(policy.target)
	if target == nil || target == q {
		return false
	}
	q.remove(m)
	target.advance(now)
	m.queueReceives = 0
	m.duplicates = 0
	m.source = q.arn
	m.arrival = s.nextArrival()
	target.add(m, ready, now)
	return true
}

// received returns the message as a receiver gets it.
func (m *message) received(q *queue, in *receiveMessageInput) receivedMessage {
	attributes := m.attributes.selected(in.MessageAttributeNames)
	return receivedMessage{
		MessageID:              m.id,
		ReceiptHandle:          receiptHandle{q.name, m.id, m.receives}.String(),
		Body:                   m.body,
		MD5OfBody:              m.md5,
		Attributes:             m.systemValues(in.AttributeNames, in.MessageSystemAttributeNames),
		MessageAttributes:      attributes,
		MD5OfMessageAttributes: attributes.md5(),
	}
}

// systemValues returns SQS's attributes that are requested by either
// parameter: AttributeNames is the older name of MessageSystemAttributeNames.
func (m *message) systemValues(names, moreNames []string) map[string]string {
	if len(names) == 0 && len(moreNames) == 0 {
		return nil
	}
	all := map[string]string{
		"SenderId":                         senderID,
		"SentTimestamp":                    milliseconds(m.sentAt),
		"ApproximateReceiveCount":          strconv.Itoa(m.receives),
		"ApproximateFirstReceiveTimestamp": milliseconds(m.firstReceived),
	}
	if m.source != "" {
		all["DeadLetterQueueSourceArn"] = m.source
	}
	if slices.Contains(names, "All") || slices.Contains(moreNames, "All") {
		return all
	}
	for name := range all {
		if !slices.Contains(names, name) && !slices.Contains(moreNames, name) {
			delete(all, name)
		}
	}
	return all
}

func milliseconds(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// receiptHandle names one receive of one message.
type receiptHandle struct {
	queue   string
	message string
	receive int
}

const handlePrefix = "sqsserver1"

func (h receiptHandle) String() string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s %s %s %d", handlePrefix, h.queue, h.message, h.receive))
}

// parseHandle parses a handle of a message of q.
func parseHandle(q *queue, s string) (receiptHandle, error) {
	if s == "" {
		return receiptHandle{}, missingParameter("ReceiptHandle")
	}
	text, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return receiptHandle{}, errReceiptHandle(s)
	}
	parts := strings.Split(string(text), " ")
	if len(parts) != 4 || parts[0] != handlePrefix || parts[1] != q.name {
		return receiptHandle{}, errReceiptHandle(s)
	}
	receive, err := strconv.Atoi(parts[3])
	if err != nil {
		return receiptHandle{}, errReceiptHandle(s)
	}
	return receiptHandle{parts[1], parts[2], receive}, nil
}

type deleteMessageInput struct {
	QueueURL      string `json:"QueueUrl"`
	ReceiptHandle string
}

func (s *Server) deleteMessage(q *queue, in *deleteMessageInput) (any, error) {
	return empty{}, s.delete(q, in.ReceiptHandle)
}

// delete removes the message if the handle is that of its latest receive, and
// does nothing otherwise. The caller holds the lock.
func (s *Server) delete(q *queue, handle string) error {
	h, err := parseHandle(q, handle)
	if err != nil {
		return err
	}
	q.advance(s.clock.Now())
	m, ok := q.messages[h.message]
	if !ok || m.receives != h.receive {
		return nil
	}
	q.remove(m)
	return nil
}

// handleBatchInput serves both batch actions on receipt handles.
type handleBatchInput struct {
	QueueURL string `json:"QueueUrl"`
	Entries  []struct {
		ID                string `json:"Id"`
		ReceiptHandle     string
		VisibilityTimeout *int
	}
}

type handleBatchOutput struct {
	Successful []succeeded    `json:",omitempty"`
	Failed     []batchFailure `json:",omitempty"`
}

type succeeded struct {
	ID string `json:"Id"`
}

func (s *Server) deleteMessageBatch(_ request, in *handleBatchInput) (any, error) {
	return s.handleBatch("DeleteMessageBatch", in, func(q *queue, i int) error {
		return s.delete(q, in.Entries[i].ReceiptHandle)
	})
}

func (s *Server) changeMessageVisibilityBatch(_ request, in *handleBatchInput) (any, error) {
	return s.handleBatch("ChangeMessageVisibilityBatch", in, func(q *queue, i int) error {
		return s.changeVisibility(q, in.Entries[i].ReceiptHandle, in.Entries[i].VisibilityTimeout)
	})
}

func (s *Server) handleBatch(action string, in *handleBatchInput, do func(q *queue, i int) error) (any, error) {
	var ids []string
	for _, e := range in.Entries {
		ids = append(ids, e.ID)
	}
	if err := checkBatch(action+"RequestEntry", ids); err != nil {
		return nil, err
	}
	var out handleBatchOutput
	err := s.eachEntry(action, in.QueueURL, ids, noBody,
		func(q *queue, i int) error {
			if err := do(q, i); err != nil {
				return err
			}
			out.Successful = append(out.Successful, succeeded{ids[i]})
			return nil
		},
		func(f batchFailure) { out.Failed = append(out.Failed, f) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

type changeMessageVisibilityInput struct {
	QueueURL          string `json:"QueueUrl"`
	ReceiptHandle     string
	VisibilityTimeout *int
}

func (s *Server) changeMessageVisibility(q *queue, in *changeMessageVisibilityInput) (any, error) {
	return empty{}, s.changeVisibility(q, in.ReceiptHandle, in.VisibilityTimeout)
}

// changeVisibility makes the message visible timeout seconds from now.
// The caller holds the lock.
func (s *Server) changeVisibility(q *queue, handle string, timeout *int) error {
	if timeout == nil {
		return missingParameter("VisibilityTimeout")
	}
	if *timeout < 0 || *timeout > maxTimeout {
		return errVisibility(*timeout)
	}
	h, err := parseHandle(q, handle)
	if err != nil {
		return err
	}
	now := s.clock.Now()
	q.advance(now)
	m, ok := q.messages[h.message]
	if !ok || m.receives != h.receive {
		return invalidParameter("Value %s for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change.", handle)
	}
	if m.state != inFlight {
		return errNotInFlight()
	}
	until := now.Add(time.Duration(*timeout) * time.Second)
	if until.Sub(m.receivedAt) > maxVisibility {
		return invalidParameter("Value %d for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [%d seconds].", *timeout, maxTimeout)
	}
	if *timeout == 0 {
		q.move(m, ready, now)
		return nil
	}
	q.move(m, inFlight, until)
	return nil
}
