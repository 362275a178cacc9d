package sqsserver

import (
	"errors"
	"fmt"
	"net/http"
)

// apiError is an error of the protocol: the name of its shape in the body,
// and the code of the older query protocol in x-amzn-query-error, which is
// the SDKs' ErrorCode().
type apiError struct {
	status    int
	shape     string
	queryCode string
	message   string
}

func (e *apiError) Error() string { return e.shape + ": " + e.message }

// senderFault reports whether the caller caused the error.
func (e *apiError) senderFault() bool { return e.status < http.StatusInternalServerError }

const queryPrefix = "AWS.SimpleQueueService."

func badRequest(shape, queryCode, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, shape, queryCode, fmt.Sprintf(format, args...)}
}

// invalidParameter is SQS's error for most values out of range. In the SDKs
// it is a generic API error.
func invalidParameter(format string, args ...any) *apiError {
	return badRequest("InvalidParameterValueException", "InvalidParameterValue", format, args...)
}

func missingParameter(name string) *apiError {
	return badRequest("MissingRequiredParameterException", "MissingParameter", "The request must contain the parameter %s.", name)
}

func errQueueDoesNotExist() *apiError {
	return badRequest("QueueDoesNotExist", queryPrefix+"NonExistentQueue", "The specified queue does not exist.")
}

func errQueueNameExists(attribute string) *apiError {
	return badRequest("QueueNameExists", "QueueAlreadyExists",
		"A queue already exists with the same name and a different value for attribute %s", attribute)
}

func errQueueDeletedRecently() *apiError {
	return badRequest("QueueDeletedRecently", queryPrefix+"QueueDeletedRecently",
		"You must wait 60 seconds after deleting a queue before you can create another with the same name.")
}

func errUnknownAttribute(name string) *apiError {
	return badRequest("InvalidAttributeName", "InvalidAttributeName", "Unknown Attribute %s.", name)
}

func errAttributeValue(name string) *apiError {
	return badRequest("InvalidAttributeValue", "InvalidAttributeValue", "Invalid value for the parameter %s.", name)
}

func errInvalidContents() *apiError {
	return badRequest("InvalidMessageContents", "InvalidMessageContents",
		"Invalid binary character was found in the message body, the set of allowed characters is #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF")
}

func errReceiptHandle(handle string) *apiError {
	e := badRequest("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid",
		"The input receipt handle %q is not a valid receipt handle.", handle)
	e.status = http.StatusNotFound
	return e
}

func errNotInFlight() *apiError {
	return badRequest("MessageNotInflight", queryPrefix+"MessageNotInflight", "The message referred to is not in flight.")
}

func errOverLimit() *apiError {
	e := badRequest("OverLimit", "OverLimit", "The maximum number of in flight messages is reached.")
	e.status = http.StatusForbidden
	return e
}

func errEmptyBatch(entry string) *apiError {
	return badRequest("EmptyBatchRequest", queryPrefix+"EmptyBatchRequest", "There should be at least one %s in the request.", entry)
}

func errTooManyEntries(n int) *apiError {
	return badRequest("TooManyEntriesInBatchRequest", queryPrefix+"TooManyEntriesInBatchRequest",
		"Maximum number of entries per request are %d. You have sent %d.", maxBatchEntries, n)
}

func errBatchEntryID() *apiError {
	return badRequest("InvalidBatchEntryId", queryPrefix+"InvalidBatchEntryId",
		"A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.")
}

func errEntryIDsNotDistinct(id string) *apiError {
	return badRequest("BatchEntryIdsNotDistinct", queryPrefix+"BatchEntryIdsNotDistinct", "Id %s repeated.", id)
}

func errBatchTooLong(size int) *apiError {
	return badRequest("BatchRequestTooLong", queryPrefix+"BatchRequestTooLong",
		"Batch requests cannot be longer than %d bytes. You have sent %d bytes.", maxRequestSize, size)
}

func errUnsupported(format string, args ...any) *apiError {
	return badRequest("UnsupportedOperation", queryPrefix+"UnsupportedOperation", format, args...)
}

func errResourceNotFound(format string, args ...any) *apiError {
	e := badRequest("ResourceNotFoundException", "ResourceNotFoundException", format, args...)
	e.status = http.StatusNotFound
	return e
}

// errorCode is the code of err as an SDK's ErrorCode() shows it.
func errorCode(e *apiError) string {
	if e.queryCode != "" {
		return e.queryCode
	}
	return e.shape
}

// asAPIError returns an InternalError for an error that is not an apiError.
func asAPIError(err error) *apiError {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e
	}
	return &apiError{http.StatusInternalServerError, "InternalFailure", "InternalError", err.Error()}
}
