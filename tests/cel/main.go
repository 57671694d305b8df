// Asks Kubernetes' own CEL environment what every expression of the corpus says, and writes the answers down.
//
//	go run . corpus.yaml answers.json       answers all expressions of the corpus
//	go run . declarations declarations.txt  lists the functions there are, one overload a line
//
// The environment is the one the API server gives a ValidatingAdmissionPolicy (without the authorizer), with the
// variables agent, action and run added. What it says is checked in; tests/it/expressions.rs holds Kustody to it.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: %s corpus.yaml answers.json | declarations declarations.txt", os.Args[0]))
	}
	var out []byte
	var err error
	if os.Args[1] == "declarations" {
		out, err = declarations()
	} else {
		out, err = answers(os.Args[1])
	}
	fail(err)
	fail(os.WriteFile(os.Args[2], out, 0o644))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
