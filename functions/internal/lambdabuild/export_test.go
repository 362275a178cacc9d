package lambdabuild

// Flags are what the functions are built with.
var Flags = flags
