package config

import "strings"

// ConsoleHost is the host of AWS's console for the region: each partition has its own domain.
func ConsoleHost(region string) string {
	domain := "console.aws.amazon.com"
	switch {
	case strings.HasPrefix(region, "cn-"):
		domain = "console.amazonaws.cn"
	case strings.HasPrefix(region, "us-gov-"):
		domain = "console.amazonaws-us-gov.com"
	}
	return region + "." + domain
}
