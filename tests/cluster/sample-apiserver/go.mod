module kustody.dev/tests/cluster/sample-apiserver

go 1.25.0
