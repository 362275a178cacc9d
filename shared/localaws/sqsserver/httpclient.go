package sqsserver

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// HTTPClient returns a client with connections of its own that hands on an answer only when it
// has all of it.
//
// The SDK closes a request's body as soon as the answer's headers are there. On a busy machine
// net/http may still be looking whether that body has ended; it then closes the connection below
// the answer that is being read, and messages are received that nobody sees until their
// visibility timeout ends.
func HTTPClient() *http.Client {
	return &http.Client{Transport: wholeAnswers{&http.Transport{MaxIdleConnsPerHost: 32}}}
}

type wholeAnswers struct{ *http.Transport }

func (t wholeAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}
