// The same cluster on top of kind, where Docker runs.
//
// Thin on purpose: kind does the work, this file gives it the same command line, the same
// cluster.json and the same kubeconfigs. kind-config.yaml at the top of the repository says what
// the cluster is.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// kindUsable says whether kind and a Docker daemon that answers are there.
func kindUsable(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, program := range []string{"kind", "kubectl"} {
		if _, err := exec.LookPath(program); err != nil {
			return false
		}
	}
	_, err := run(ctx, "docker", "info")
	return err == nil
}

func (i *instance) kindName() string      { return "kustody-" + i.ID[:8] }
func (i *instance) kindContainer() string { return i.kindName() + "-control-plane" }

func kindUp(ctx context.Context, i *instance) error {
	source, err := sourceDir()
	if err != nil {
		return err
	}
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		return err
	}
	config := filepath.Join(source, "..", "..", "kind-config.yaml")
	kubeconfig := i.path("admin.kubeconfig")
	say("creating a kind cluster")
	if _, err := run(ctx, "kind", "create", "cluster", "--name", i.kindName(), "--config", config, "--kubeconfig", kubeconfig, "--wait", "120s"); err != nil {
		return err
	}
	if err := kindAuthority(i); err != nil {
		return err
	}
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return err
	}
	server := regexp.MustCompile(`server:\s*(\S+)`).FindSubmatch(text)
	if server == nil {
		return fmt.Errorf("%s names no server", kubeconfig)
	}
	version, err := run(ctx, "docker", "exec", i.kindContainer(), "cat", "/kind/version")
	if err != nil {
		return err
	}
	gateway, err := run(ctx, "docker", "exec", i.kindContainer(), "sh", "-c", "ip -4 route show default | cut -d' ' -f3")
	if err != nil {
		return err
	}
	made, err := tiny(ctx)
	if err != nil {
		return err
	}
	archive := i.path("node", "tiny.tar")
	if err := made.writeTo(archive); err != nil {
		return err
	}
	if err := kindLoad(ctx, i, archive); err != nil {
		return err
	}
	host := strings.TrimSpace(gateway)
	return writeJSON(i.path(clusterFile), clusterInfo{
		Name: i.Name, ID: i.ID, Backend: backendKind, Version: strings.TrimSpace(version), Server: string(server[1]),
		CAFile: i.pki("kind-ca.crt"), Kubeconfig: kubeconfig, Kubectl: kubectl, LogDir: i.LogDir,
		Node: true, NodeName: i.kindContainer(), HostIP: host, PodGatewayIP: host, Image: tinyImage,
	}, 0o644)
}

// kindAuthority copies the cluster's client authority, so that client certificates can be minted.
func kindAuthority(i *instance) error {
	if err := os.MkdirAll(i.pki(""), 0o700); err != nil {
		return err
	}
	for _, name := range []string{"ca.crt", "ca.key"} { // kept apart from the authority of the S3 server
		text, err := exec.Command("docker", "exec", i.kindContainer(), "cat", "/etc/kubernetes/pki/"+name).Output()
		if err != nil {
			return fmt.Errorf("read %s of the kind cluster: %w", name, err)
		}
		if err := writeFile(i.pki("kind-"+name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func kindHealth(ctx context.Context, i *instance) error {
	_, err := run(ctx, "kubectl", "--kubeconfig", i.path("admin.kubeconfig"), "get", "--raw", "/readyz")
	return err
}

func kindLoad(ctx context.Context, i *instance, path string) error {
	_, err := run(ctx, "kind", "load", "image-archive", path, "--name", i.kindName())
	return err
}

// kindDown keeps the logs of the node and deletes the cluster.
func kindDown(i *instance) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := run(ctx, "kind", "export", "logs", i.LogDir, "--name", i.kindName()); err != nil {
		say("the node's logs are not kept: %v", errors.Unwrap(err))
	}
	_, err := run(ctx, "kind", "delete", "cluster", "--name", i.kindName(), "--kubeconfig", i.path("admin.kubeconfig"))
	return err
}
