// Package packages holds tests of the packages that deploy/packages makes, and no
// code: they are built twice in two directories, listed, installed into a root of
// their own by dpkg and by rpm, upgraded, downgraded, removed and purged. What was
// installed is started, and copies a disk.
//
// In that root systemctl is a script that writes down what it is asked for: there is
// no systemd to run. What it would do is tested where the units are.
package packages
