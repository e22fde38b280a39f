package vsphere

import "github.com/haulback/haulback/hostctl"

// A host's texts are foreign: one line, bounded, nothing that steers a terminal.
var clean, cut = hostctl.Clean, hostctl.Cut
