package sqsserver

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// HTTPClient returns a client with new connections that reads each response completely before it returns it.
//
// The SDK closes a request's body when the response headers arrive. On a busy machine net/http may still be reading that
// body; it then closes the connection while the response is read, and the received messages are lost until their
// visibility timeout ends.
func HTTPClient() *http.Client {
	return &http.Client{Transport: wholeResponses{&http.Transport{MaxIdleConnsPerHost: 32}}}
}

type wholeResponses struct{ *http.Transport }

func (t wholeResponses) RoundTrip(r *http.Request) (*http.Response, error) {
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
