// An aggregated API beside the cluster: upstream's sample-apiserver, the commands `aggregated up`
// and `aggregated down`.
//
// It is built on first use, serves flunders and fischers of wardle.example.com under its own prefix
// in the cluster's etcd, and asks the cluster about authentication and authorization as a user of
// its own. The API server verifies it and reaches it through a Service on the host's end of the
// node's link. Its audit log says what its own admission said.
package main

import (
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	aggregatedComponent = "sample-apiserver"
	aggregatedUser      = "wardle-server"
)

// aggregatedManifest is what the cluster has to know of it: rights, Service and APIServices.
//
//go:embed aggregated.yaml
var aggregatedManifest string

// aggregatedInfo is aggregated.json.
type aggregatedInfo struct {
	AuditLog string `json:"audit_log"`
}

func commandAggregated(ctx context.Context, arguments []string) error {
	set := flags("aggregated")
	name := set.String("name", defaultName, "name of the cluster")
	var extra []string
	set.Func("flag", "one more flag for sample-apiserver; repeatable", func(value string) error {
		extra = append(extra, value)
		return nil
	})
	words, err := parse(set, arguments, 1)
	if err != nil {
		return err
	}
	held, err := lock("cluster-" + *name)
	if err != nil {
		return err
	}
	defer held.Close()
	i, err := running(*name)
	if err != nil {
		return err
	}
	switch words[0] {
	case "up":
		if err := i.aggregatedUp(ctx, extra); err != nil {
			return errors.Join(err, i.aggregatedDown(context.WithoutCancel(ctx)))
		}
		fmt.Println(i.path("aggregated.json"))
		return nil
	case "down":
		return i.aggregatedDown(ctx)
	}
	return fmt.Errorf("aggregated takes up or down, got %q", words[0])
}

// aggregatedUp starts it anew, also when one runs already: the flags may be others.
func (i *instance) aggregatedUp(ctx context.Context, extra []string) error {
	if !i.Node || i.Backend != backendProcesses {
		return errors.New("an aggregated API needs a cluster of processes with a node: without one no Service reaches this host")
	}
	program, err := buildSampleAPIServer(ctx, i.Release)
	if err != nil {
		return err
	}
	if err := i.writeAggregatedPKI(); err != nil {
		return err
	}
	if err := i.endAggregated(); err != nil {
		return err
	}
	if err := i.applyAggregated(ctx, "apply"); err != nil {
		return err
	}
	info := aggregatedInfo{AuditLog: filepath.Join(i.LogDir, "aggregated-audit.log")}
	started, err := i.start(aggregatedComponent, nil, program, append(i.aggregatedFlags(info), extra...)...)
	if err != nil {
		return err
	}
	client, err := i.client()
	if err != nil {
		return err
	}
	err = await(ctx, "the aggregated API", time.Minute, []*component{started}, func() error {
		if err := client.apiServiceAvailable(ctx, "v1alpha1.wardle.example.com"); err != nil {
			return err
		}
		return client.get(ctx, "/apis/wardle.example.com/v1alpha1/flunders", nil)
	})
	if err != nil {
		return err
	}
	return writeJSON(i.path("aggregated.json"), info, 0o644)
}

func (i *instance) aggregatedDown(ctx context.Context) error {
	err := i.applyAggregated(ctx, "delete")
	if gone := os.Remove(i.path("aggregated.json")); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return errors.Join(err, i.endAggregated())
}

func (i *instance) endAggregated() error {
	return kill(i.ID, func(one process) bool { return one.Component == aggregatedComponent })
}

// buildSampleAPIServer returns the path of the server of the cluster's own minor release.
func buildSampleAPIServer(ctx context.Context, release string) (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	server := target{name: aggregatedComponent + "-" + release, folder: aggregatedComponent, modfile: release + ".mod", ldflags: "-s -w",
		packages: map[string]string{aggregatedComponent: "k8s.io/sample-apiserver"}}
	dir, err := server.build(ctx, source)
	return filepath.Join(dir, aggregatedComponent), err
}

// writeAggregatedPKI makes its serving certificate and its two identities: at the API server and at etcd.
func (i *instance) writeAggregatedPKI() error {
	for _, one := range []struct {
		authority string
		leaf      leaf
	}{
		{"ca", leaf{name: "aggregated", common: aggregatedComponent, hosts: []string{"api.wardle.svc"}}},
		{"ca", leaf{name: "aggregated-client", common: aggregatedUser}},
		{"etcd-ca", leaf{name: "aggregated-etcd-client", common: aggregatedUser}},
	} {
		signer, err := i.loadAuthority(one.authority)
		if err != nil {
			return err
		}
		if err := i.writeLeaf(signer, one.leaf); err != nil {
			return err
		}
	}
	return i.writeKubeconfig("aggregated-client")
}

func (i *instance) aggregatedFlags(info aggregatedInfo) []string {
	kubeconfig := i.path("aggregated-client.kubeconfig")
	return []string{
		fmt.Sprintf("--secure-port=%d", i.Ports.Aggregate), "--bind-address=" + i.hostIP(),
		"--tls-cert-file=" + i.pki("aggregated.crt"), "--tls-private-key-file=" + i.pki("aggregated.key"),
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", i.Ports.Etcd), "--etcd-cafile=" + i.pki("etcd-ca.crt"),
		"--etcd-certfile=" + i.pki("aggregated-etcd-client.crt"), "--etcd-keyfile=" + i.pki("aggregated-etcd-client.key"),
		"--audit-policy-file=" + i.path("audit-policy.yaml"), "--audit-log-path=" + info.AuditLog,
	}
}

// applyAggregated creates or deletes what the cluster has to know of it.
func (i *instance) applyAggregated(ctx context.Context, verb string) error {
	info, err := i.info()
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(i.pki("ca.crt"))
	if err != nil {
		return err
	}
	manifest := strings.NewReplacer("ADDRESS", i.hostIP(), "PORT", fmt.Sprint(i.Ports.Aggregate), "USER", aggregatedUser,
		"BUNDLE", base64.StdEncoding.EncodeToString(ca)).Replace(aggregatedManifest)
	arguments := []string{"--kubeconfig", info.Kubeconfig, verb, "-f", "-"}
	if verb == "delete" {
		arguments = append(arguments, "--ignore-not-found", "--timeout=60s")
	}
	command := exec.CommandContext(ctx, info.Kubectl, arguments...)
	command.Stdin = strings.NewReader(manifest)
	_, err = output(command)
	return err
}

// apiServiceAvailable: the API server has found, verified and asked it.
func (c *apiClient) apiServiceAvailable(ctx context.Context, name string) error {
	var service struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get(ctx, "/apis/apiregistration.k8s.io/v1/apiservices/"+name, &service); err != nil {
		return err
	}
	for _, condition := range service.Status.Conditions {
		if condition.Type == "Available" && condition.Status == "True" {
			return nil
		}
	}
	return fmt.Errorf("%s is not available: %v", name, service.Status.Conditions)
}
