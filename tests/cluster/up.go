// Boots a cluster and says when it is ready; undoes everything when it cannot.
//
// The order matters: the node's namespaces come first, because the API server binds the host's
// end of the link to it; container runtime and image are prepared while the API server starts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"
)

const (
	backendProcesses = "processes"
	backendKind      = "kind"
	logsKept         = 5
)

// upOptions are the flags of `up`.
type upOptions struct {
	name             string
	dir              string
	release          string
	controlPlaneOnly bool
	backend          string
	withS3           bool
	webhookIdentity  bool // the API server presents a client certificate to webhooks
	apiServerFlags   []string
}

func defaultBackend() string {
	if backend := os.Getenv("KUSTODY_CLUSTER_BACKEND"); backend != "" {
		return backend
	}
	return "auto"
}

// chooseBackend takes kind where kind and Docker work, unless told otherwise.
func chooseBackend(ctx context.Context, asked string, controlPlaneOnly bool) (string, error) {
	switch asked {
	case backendProcesses, backendKind:
		return asked, nil
	case "auto":
		if !controlPlaneOnly && kindUsable(ctx) {
			return backendKind, nil
		}
		return backendProcesses, nil
	}
	return "", fmt.Errorf("backend %q: auto, kind or processes", asked)
}

func up(ctx context.Context, o upOptions) error {
	begin := time.Now()
	if _, err := find(o.name); err != nil {
		return err
	}
	held, err := lock("cluster-" + o.name)
	if err != nil {
		return err
	}
	defer held.Close()
	existing, err := find(o.name)
	if err != nil {
		return err
	}
	if existing != nil {
		if problem := existing.health(ctx, o); problem == nil {
			say("cluster %s is already up", o.name)
			if err := withS3(ctx, existing, o); err != nil {
				return err
			}
			fmt.Println(existing.path(clusterFile))
			return nil
		} else {
			say("cluster %s cannot be used as it is (%v): starting it anew", o.name, problem)
		}
		if err := teardown(existing); err != nil {
			return err
		}
	}
	backend, err := chooseBackend(ctx, o.backend, o.controlPlaneOnly)
	if err != nil {
		return err
	}
	i, err := boot(ctx, o, backend)
	if err != nil {
		return err
	}
	if err := withS3(ctx, i, o); err != nil {
		return errors.Join(err, teardown(i))
	}
	say("cluster %s is up after %s", i.Name, time.Since(begin).Round(100*time.Millisecond))
	say("  export KUBECONFIG=%s", i.path("admin.kubeconfig"))
	fmt.Println(i.path(clusterFile))
	return nil
}

func withS3(ctx context.Context, i *instance, o upOptions) error {
	if !o.withS3 {
		return nil
	}
	return startS3(ctx, i)
}

// boot starts a fresh cluster. What it started is gone again when it returns an error.
func boot(ctx context.Context, o upOptions, backend string) (*instance, error) {
	tools := toolset{}
	var err error
	if backend == backendProcesses {
		if !o.controlPlaneOnly {
			if os.Geteuid() != 0 {
				return nil, errors.New("a node needs root; without it use --control-plane-only")
			}
			if err := systemPackages(ctx); err != nil {
				return nil, err
			}
		}
		if tools, err = build(ctx, o.release); err != nil {
			return nil, err
		}
		if !o.controlPlaneOnly {
			if tools, err = tools.buildRuntime(ctx, o.release); err != nil {
				return nil, err
			}
		}
	}
	if o.webhookIdentity && backend != backendProcesses {
		return nil, errors.New("--webhook-identity is for a cluster of processes")
	}
	i, err := create(o.name, o.dir, backend, o.release, !o.controlPlaneOnly)
	if err != nil {
		return nil, err
	}
	i.Runtime, i.WebhookIdentity = tools.runtime, o.webhookIdentity
	if err := i.save(); err != nil {
		return nil, errors.Join(err, teardown(i))
	}
	if backend == backendKind {
		err = kindUp(ctx, i)
	} else {
		err = i.bootProcesses(ctx, tools, o)
	}
	if err != nil {
		if ctx.Err() != nil {
			say("interrupted: taking down what was started")
		}
		return nil, errors.Join(err, teardown(i))
	}
	pruneLogs(i)
	return i, nil
}

func (i *instance) bootProcesses(ctx context.Context, tools toolset, o upOptions) error {
	if err := i.writePKI(); err != nil {
		return err
	}
	for _, user := range []string{"admin", "controller-manager", "scheduler", "node", "proxy"} {
		if err := i.writeKubeconfig(user); err != nil {
			return err
		}
	}
	var opened *node
	var err error
	if i.Node {
		if opened, err = i.openNode(ctx, tools.hyperkube); err != nil {
			return err
		}
	}
	started, err := i.startControlPlane(ctx, tools, o, opened)
	if err != nil {
		return err
	}
	if err := i.awaitReady(ctx, started); err != nil {
		return err
	}
	return writeJSON(i.path(clusterFile), i.describe(tools), 0o644)
}

// startControlPlane starts everything and returns what must stay alive.
func (i *instance) startControlPlane(ctx context.Context, tools toolset, o upOptions, opened *node) ([]*component, error) {
	etcd, err := i.startEtcd(tools.etcd)
	if err != nil {
		return nil, err
	}
	api, err := i.startAPIServer(tools.hyperkube, o.apiServerFlags)
	if err != nil {
		return nil, err
	}
	runtime := make(chan error, 1)
	if opened != nil {
		go func() { runtime <- i.startNode(ctx, opened) }()
	} else {
		runtime <- nil
	}
	client, err := i.client()
	if err != nil {
		return nil, err
	}
	ready := await(ctx, "the API server", 3*time.Minute, []*component{api, etcd}, func() error { return client.ready(ctx) })
	if err := errors.Join(ready, <-runtime); err != nil {
		return nil, err
	}
	manager, err := i.startControllerManager(tools.hyperkube)
	if err != nil {
		return nil, err
	}
	scheduler, err := i.startScheduler(tools.hyperkube)
	if err != nil {
		return nil, err
	}
	started := []*component{etcd, api, manager, scheduler}
	if opened != nil {
		started = append(started, opened.init)
	}
	return started, nil
}

func (i *instance) awaitReady(ctx context.Context, started []*component) error {
	client, err := i.client()
	if err != nil {
		return err
	}
	err = await(ctx, "the default service account", 2*time.Minute, started, func() error { return client.serviceAccountReady(ctx) })
	if err != nil || !i.Node {
		return err
	}
	err = await(ctx, "the node", 2*time.Minute, started, func() error {
		return client.nodeReady(ctx, i.nodeName())
	})
	if failure := i.nodeFailure(); failure != nil {
		return failure
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, logTail(filepath.Join(i.LogDir, "kubelet.log")))
	}
	return nil
}

// describe is the cluster.json of a cluster made of processes.
func (i *instance) describe(tools toolset) clusterInfo {
	info := clusterInfo{
		Name: i.Name, ID: i.ID, Backend: i.Backend, Version: tools.version, Server: i.server(),
		CAFile: i.pki("ca.crt"), Kubeconfig: i.path("admin.kubeconfig"), Kubectl: tools.kubectl,
		LogDir: i.LogDir, AuditLog: i.auditLog(), HostIP: "127.0.0.1", ServiceCIDR: i.serviceCIDR(),
	}
	if i.Node {
		info.Node, info.NodeName, info.PodGatewayIP, info.PodCIDR = true, i.nodeName(), i.hostIP(), i.podCIDR()
		info.Image, info.ContainerdSocket = tinyImage, i.containerdSocket()
	}
	return info
}

func (i *instance) info() (clusterInfo, error) {
	var info clusterInfo
	err := readJSON(i.path(clusterFile), &info)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("cluster %s is not up", i.Name)
	}
	return info, err
}

// health says why a registered cluster cannot serve as what is asked for, or nil.
func (i *instance) health(ctx context.Context, o upOptions) error {
	if _, err := i.info(); err != nil {
		return err
	}
	if o.dir != "" {
		if dir, err := filepath.Abs(o.dir); err != nil || dir != i.Dir {
			return fmt.Errorf("it lives in %s", i.Dir)
		}
	}
	if o.backend != "auto" && o.backend != i.Backend {
		return fmt.Errorf("its backend is %s", i.Backend)
	}
	if i.Backend == backendKind {
		return kindHealth(ctx, i)
	}
	if i.Release != o.release {
		return fmt.Errorf("it runs Kubernetes %s", i.Release)
	}
	if !i.Node && !o.controlPlaneOnly {
		return errors.New("it has no node")
	}
	if i.WebhookIdentity != o.webhookIdentity {
		return fmt.Errorf("--webhook-identity is %t there", i.WebhookIdentity)
	}
	alive, err := components(i.ID)
	if err != nil {
		return err
	}
	for _, name := range i.expected() {
		if alive[name] == 0 {
			return fmt.Errorf("%s does not run", name)
		}
	}
	client, err := i.client()
	if err != nil {
		return err
	}
	if err := client.ready(ctx); err != nil || !i.Node {
		return err
	}
	return client.nodeReady(ctx, i.nodeName())
}

// expected names the components that must run.
func (i *instance) expected() []string {
	names := []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	if i.Node {
		names = append(names, "node", "containerd", "kubelet", "kube-proxy")
	}
	return names
}

// pruneLogs keeps the logs of the last runs only.
func pruneLogs(i *instance) {
	runs, err := filepath.Glob(i.path("logs", "2*Z"))
	if err != nil || len(runs) <= logsKept {
		return
	}
	sort.Strings(runs)
	for _, run := range runs[:len(runs)-logsKept] {
		if err := os.RemoveAll(run); err != nil {
			say("old logs stay: %v", err)
		}
	}
}
