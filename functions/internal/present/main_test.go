package present

import (
	"os"
	"testing"
)

func TestAWSSettingsOfDotEnvReachTheSDKAndNothingElseDoes(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-central-1")
	t.Setenv("AWS_PROFILE", "") // set, though empty
	for _, name := range []string{"AWS_ENDPOINT_URL_SQS", "STRIPE_SECRET_KEY"} {
		t.Setenv(name, "restored when the test ends")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := exportAWS(map[string]string{
		"AWS_REGION": "us-east-1", "AWS_PROFILE": "other", "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1", "STRIPE_SECRET_KEY": "from the file",
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"AWS_REGION": "eu-central-1", "AWS_PROFILE": "", "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1", "STRIPE_SECRET_KEY": ""} {
		if got := os.Getenv(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
