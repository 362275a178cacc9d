package lambdabuild

// Flags are the flags of the build.
var Flags = flags
