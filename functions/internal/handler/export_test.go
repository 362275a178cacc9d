package handler

// EnumeratorRequest is what the enumerator makes of an event.
var EnumeratorRequest = enumeratorRequest
