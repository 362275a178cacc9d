package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

const (
	defaultDowngrades           = 10
	defaultDowngradeBasisPoints = 500 // 5 %
	wholeInBasisPoints          = 10_000
)

// DowngradeLimit says how many organizations one run may downgrade: a number, a
// percentage of the listed organizations, or, as its zero value, the larger of
// 10 and 5 %.
type DowngradeLimit struct {
	isSet, isPercentage bool
	value               int // a number, or hundredths of a percent
}

// Limit returns the number of downgrades allowed in a run that lists so many
// organizations. A percentage is rounded down.
func (d DowngradeLimit) Limit(listed int) int {
	listed = max(listed, 0)
	switch {
	case d.isPercentage:
		return max(share(listed, d.value), min(d.value, listed, 1)) // a run over one organization must be able to repair it
	case d.isSet:
		return d.value
	default:
		return max(defaultDowngrades, share(listed, defaultDowngradeBasisPoints))
	}
}

// share takes basis points of a number without overflowing.
func share(of, basisPoints int) int {
	whole, rest := of/wholeInBasisPoints, of%wholeInBasisPoints
	return whole*basisPoints + rest*basisPoints/wholeInBasisPoints
}

// String returns the limit as it is written in MAX_DOWNGRADES.
func (d DowngradeLimit) String() string {
	switch {
	case d.isPercentage:
		return strconv.FormatFloat(float64(d.value)/100, 'f', -1, 64) + "%"
	case d.isSet:
		return strconv.Itoa(d.value)
	default:
		return "the larger of 10 and 5%"
	}
}

// MarshalText returns what String does.
func (d DowngradeLimit) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// percentage has at most two decimals, which are read as they stand: a float turns some of them into
// the number below.
var percentage = regexp.MustCompile(`^(\d+)(?:\.(\d{1,2}))?$`)

// UnmarshalText reads a number or a percentage. Its errors do not repeat the
// text.
func (d *DowngradeLimit) UnmarshalText(text []byte) error {
	digits, isPercentage := strings.CutSuffix(string(text), "%")
	if !isPercentage {
		number, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || number > math.MaxInt32 {
			return errNotValid
		}
		*d = DowngradeLimit{isSet: true, value: int(number)}
		return nil
	}
	parts := percentage.FindStringSubmatch(strings.TrimSpace(digits))
	if parts == nil {
		return errNotValid
	}
	points, err := strconv.Atoi(parts[1] + (parts[2] + "00")[:2])
	if err != nil || points > wholeInBasisPoints {
		return errNotValid
	}
	*d = DowngradeLimit{isSet: true, isPercentage: true, value: points}
	return nil
}
