package config

import (
	"errors"
	"math"
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
	kind  downgradeKind
	value int // a number, or hundredths of a percent
}

type downgradeKind uint8

const (
	downgradeDefault downgradeKind = iota
	downgradeNumber
	downgradePercentage
)

// Limit returns the number of downgrades allowed in a run that lists so many
// organizations. A percentage is rounded down.
func (d DowngradeLimit) Limit(listed int) int {
	listed = max(listed, 0)
	switch d.kind {
	case downgradeNumber:
		return d.value
	case downgradePercentage:
		return max(share(listed, d.value), min(d.value, listed, 1)) // a run over one organization must be able to repair it
	case downgradeDefault:
		return max(defaultDowngrades, share(listed, defaultDowngradeBasisPoints))
	default:
		return 0
	}
}

// share takes basis points of a number without overflowing.
func share(of, basisPoints int) int {
	whole, rest := of/wholeInBasisPoints, of%wholeInBasisPoints
	return whole*basisPoints + rest*basisPoints/wholeInBasisPoints
}

// String returns the limit as it is written in MAX_DOWNGRADES.
func (d DowngradeLimit) String() string {
	switch d.kind {
	case downgradeNumber:
		return strconv.Itoa(d.value)
	case downgradePercentage:
		return strconv.FormatFloat(float64(d.value)/100, 'f', -1, 64) + "%"
	case downgradeDefault:
		return "the larger of 10 and 5%"
	default:
		return "invalid"
	}
}

// MarshalText returns what String does.
func (d DowngradeLimit) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a number or a percentage. Its errors do not repeat the
// text.
func (d *DowngradeLimit) UnmarshalText(text []byte) error {
	digits, isPercentage := strings.CutSuffix(string(text), "%")
	if !isPercentage {
		number, err := parseDigits(digits)
		if err != nil {
			return err
		}
		*d = DowngradeLimit{kind: downgradeNumber, value: number}
		return nil
	}
	points, err := parsePercentage(strings.TrimSpace(digits))
	if err != nil {
		return err
	}
	*d = DowngradeLimit{kind: downgradePercentage, value: points}
	return nil
}

var (
	errNotANumber   = errors.New("not a whole number")
	errNotAPercents = errors.New("not a percentage from 0 to 100 with at most two decimals")
)

func parseDigits(digits string) (int, error) {
	number, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || number > math.MaxInt32 {
		return 0, errNotANumber
	}
	return int(number), nil
}

// parsePercentage returns hundredths of a percent. It reads the decimals itself,
// since a float turns some of them into the number below.
func parsePercentage(text string) (int, error) {
	whole, decimals, hasPoint := strings.Cut(text, ".")
	if hasPoint && (decimals == "" || len(decimals) > 2) {
		return 0, errNotAPercents
	}
	for len(decimals) < 2 {
		decimals += "0"
	}
	percent, err := parseDigits(whole)
	if err != nil || percent > 100 {
		return 0, errNotAPercents
	}
	hundredths, err := parseDigits(decimals)
	if err != nil || percent*100+hundredths > wholeInBasisPoints {
		return 0, errNotAPercents
	}
	return percent*100 + hundredths, nil
}
