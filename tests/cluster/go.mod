module kustody.dev/tests/cluster

go 1.25.0
