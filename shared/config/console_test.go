package config_test

import (
	"testing"

	"github.com/pixell-global/subscription-reconciliation/shared/config"
)

func TestConsoleHostIsOfTheRegionsPartition(t *testing.T) {
	for region, want := range map[string]string{
		"eu-central-1": "eu-central-1.console.aws.amazon.com", "cn-north-1": "cn-north-1.console.amazonaws.cn", "us-gov-west-1": "us-gov-west-1.console.amazonaws-us-gov.com",
	} {
		if got := config.ConsoleHost(region); got != want {
			t.Errorf("%s: %s, want %s", region, got, want)
		}
	}
}
