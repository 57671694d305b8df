module kustody.dev/tests/cluster/kubernetes

go 1.25.0
