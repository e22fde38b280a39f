package vddk

// OpenNBD is opened here until Open knows the scheme.
var OpenNBD = openNBD
