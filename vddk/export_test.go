package vddk

// OpenNBD is opened here until Open knows the scheme.
var OpenNBD = openNBD

// NBDRemedy is what it adds to an error.
var NBDRemedy = nbdRemedy
