package handler

// EnumeratorRequest decodes the enumerator's event.
var EnumeratorRequest = enumeratorRequest
