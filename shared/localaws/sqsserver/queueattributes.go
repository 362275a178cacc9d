package sqsserver

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// maxRequestSize is the most bytes that one message, and all messages of one
// batch, may have: 1 MiB.
const maxRequestSize = 1 << 20

// queueAttributes are the settings of a queue, as CreateQueue and
// SetQueueAttributes take them.
type queueAttributes struct {
	delay      time.Duration
	retention  time.Duration
	visibility time.Duration
	wait       time.Duration
	maxSize    int
	redrive    *redrivePolicy // nil: no dead-letter queue
}

type redrivePolicy struct {
	target          string // ARN of the dead-letter queue
	maxReceiveCount int
}

// defaultAttributes are those that the API reference of CreateQueue names.
func defaultAttributes() queueAttributes {
	return queueAttributes{
		retention:  4 * 24 * time.Hour,
		visibility: 30 * time.Second,
		maxSize:    maxRequestSize,
	}
}

// with returns a copy in which the given attributes are set.
func (a queueAttributes) with(set map[string]string) (queueAttributes, error) {
	for name, value := range set {
		if err := a.set(name, value); err != nil {
			return queueAttributes{}, err
		}
	}
	return a, nil
}

func (a *queueAttributes) set(name, value string) error {
	var err error
	switch name {
	case "DelaySeconds":
		a.delay, err = seconds(name, value, 0, 900)
	case "MessageRetentionPeriod":
		a.retention, err = seconds(name, value, 60, 1_209_600)
	case "VisibilityTimeout":
		a.visibility, err = seconds(name, value, 0, 43_200)
	case "ReceiveMessageWaitTimeSeconds":
		a.wait, err = seconds(name, value, 0, 20)
	case "MaximumMessageSize":
		a.maxSize, err = integer(name, value, 1024, maxRequestSize)
	case "RedrivePolicy":
		a.redrive, err = parseRedrivePolicy(value)
	default: // also those of FIFO queues, policies and encryption
		err = errUnknownAttribute(name)
	}
	return err
}

// values returns the attributes as GetQueueAttributes shows them.
func (a queueAttributes) values() map[string]string {
	v := map[string]string{
		"DelaySeconds":                  wholeSeconds(a.delay),
		"MessageRetentionPeriod":        wholeSeconds(a.retention),
		"VisibilityTimeout":             wholeSeconds(a.visibility),
		"ReceiveMessageWaitTimeSeconds": wholeSeconds(a.wait),
		"MaximumMessageSize":            strconv.Itoa(a.maxSize),
	}
	if a.redrive != nil {
		v["RedrivePolicy"] = a.redrive.String()
	}
	return v
}

func wholeSeconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

func seconds(name, value string, low, high int) (time.Duration, error) {
	n, err := integer(name, value, low, high)
	return time.Duration(n) * time.Second, err
}

func integer(name, value string, low, high int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return 0, errAttributeValue(name)
	}
	return n, nil
}

// parseRedrivePolicy reads {"deadLetterTargetArn":ARN,"maxReceiveCount":N},
// where N may be a string. An empty value removes the policy.
func parseRedrivePolicy(value string) (*redrivePolicy, error) {
	if value == "" {
		return nil, nil
	}
	var in struct {
		DeadLetterTargetARN string `json:"deadLetterTargetArn"`
		MaxReceiveCount     any    `json:"maxReceiveCount"`
	}
	d := json.NewDecoder(strings.NewReader(value))
	d.UseNumber()
	if err := d.Decode(&in); err != nil {
		return nil, redriveError(value, "Redrive policy is not a valid JSON map.")
	}
	if in.DeadLetterTargetARN == "" {
		return nil, redriveError(value, "Redrive policy does not contain mandatory attribute: deadLetterTargetArn.")
	}
	if in.MaxReceiveCount == nil {
		return nil, redriveError(value, "Redrive policy does not contain mandatory attribute: maxReceiveCount.")
	}
	var text string
	switch n := in.MaxReceiveCount.(type) {
	case json.Number:
		text = n.String()
	case string:
		text = n
	}
	count, err := strconv.Atoi(text)
	if err != nil || count < 1 || count > 1000 {
		return nil, redriveError(value, "Invalid value for maxReceiveCount: it must be between 1 and 1000.")
	}
	return &redrivePolicy{target: in.DeadLetterTargetARN, maxReceiveCount: count}, nil
}

func redriveError(value, reason string) error {
	return invalidParameter("Value %s for parameter RedrivePolicy is invalid. Reason: %s", value, reason)
}

// String is the policy as JSON, as GetQueueAttributes shows it.
func (p *redrivePolicy) String() string {
	// Marshaling two plain fields cannot fail.
	b, _ := json.Marshal(struct {
		DeadLetterTargetARN string `json:"deadLetterTargetArn"`
		MaxReceiveCount     int    `json:"maxReceiveCount"`
	}{p.target, p.maxReceiveCount})
	return string(b)
}
