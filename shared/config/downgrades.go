package config

import (
	"regexp"
	"strconv"
)

const whole = 10_000 // basis points

// DowngradeLimit is how many organizations one run may downgrade: a number, a percentage of the listed
// organizations, or, as its zero value, the larger of 10 and 5 %.
type DowngradeLimit struct {
	isSet, isPercentage bool
	number, basisPoints int
}

// Limit returns the limit of a run that lists so many organizations. A percentage is rounded down, but a run
// over one organization may repair it.
func (d DowngradeLimit) Limit(listed int) int {
	listed = max(listed, 0)
	if !d.isSet {
		d.number, d.basisPoints = 10, 500
	}
	share := listed/whole*d.basisPoints + listed%whole*d.basisPoints/whole // without overflow
	return max(d.number, share, min(d.basisPoints, listed, 1))
}

// String returns the limit as it is written in MAX_DOWNGRADES.
func (d DowngradeLimit) String() string {
	switch {
	case !d.isSet:
		return "the larger of 10 and 5%"
	case d.isPercentage:
		return strconv.FormatFloat(float64(d.basisPoints)/100, 'f', -1, 64) + "%"
	default:
		return strconv.Itoa(d.number)
	}
}

// MarshalText returns the same as String.
func (d DowngradeLimit) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// percentage has at most two decimals. They are not parsed as a float, which may be below the decimal number.
var percentage = regexp.MustCompile(`^(\d+)(?:\.(\d{1,2}))?\s*%$`)

// UnmarshalText reads a number or a percentage. Its errors do not repeat the text.
func (d *DowngradeLimit) UnmarshalText(text []byte) error {
	if parts := percentage.FindStringSubmatch(string(text)); parts != nil {
		points, err := strconv.Atoi(parts[1] + (parts[2] + "00")[:2])
		if err != nil || points > whole {
			return errNotValid
		}
		*d = DowngradeLimit{isSet: true, isPercentage: true, basisPoints: points}
		return nil
	}
	number, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return errNotValid
	}
	*d = DowngradeLimit{isSet: true, number: int(number)}
	return nil
}
