// Package output writes runs for people and for machines, the same way in every command: a bar while
// a run is in progress, and its summary as text or as JSON.
package output
