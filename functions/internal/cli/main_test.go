package cli

import (
	"os"
	"testing"
)

func TestOnlyAWSSettingsOfDotEnvAreExported(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-central-1")
	t.Setenv("AWS_PROFILE", "") // set, though empty
	for _, name := range []string{"AWS_ENDPOINT_URL_SQS", "STRIPE_SECRET_KEY"} {
		t.Setenv(name, "restored when the test ends")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile(".env", []byte("AWS_REGION=us-east-1\nAWS_PROFILE=other\nAWS_ENDPOINT_URL_SQS=http://127.0.0.1:1\nSTRIPE_SECRET_KEY=sk_test_of_the_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ, err := WithDotEnv(map[string]string{"AWS_REGION": "eu-central-1", "DB_HOST": "x"})
	if err != nil || environ["STRIPE_SECRET_KEY"] != "sk_test_of_the_file" || environ["DB_HOST"] != "x" || environ["AWS_REGION"] != "eu-central-1" {
		t.Fatalf("%v, %v", environ, err)
	}
	for name, want := range map[string]string{"AWS_REGION": "eu-central-1", "AWS_PROFILE": "", "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1", "STRIPE_SECRET_KEY": ""} {
		if got := os.Getenv(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
