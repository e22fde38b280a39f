package main

import (
	"os"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
)

var programs cmdtest.Programs

func TestMain(m *testing.M) { os.Exit(cmdtest.Main(m, &programs)) }
