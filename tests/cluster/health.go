// When a restarted part serves: each is asked where it says so itself, over verified TLS where it
// has any, and the node has to have reported to the API server since.
//
// Only asks; restart.go starts and ends.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"
)

// healthy asks a part whether it serves.
func (i *instance) healthy(ctx context.Context, part string) error {
	if slices.Contains(nodeParts, part) {
		if err := i.nodeFailure(); err != nil {
			return err
		}
	}
	switch part {
	case "etcd":
		return i.ask(ctx, fmt.Sprintf("https://127.0.0.1:%d/health", i.Ports.Etcd), "etcd-ca", "apiserver-etcd-client")
	case "kube-apiserver":
		client, err := i.client()
		if err != nil {
			return err
		}
		return client.ready(ctx)
	case "kube-controller-manager":
		return i.ask(ctx, fmt.Sprintf("https://127.0.0.1:%d/healthz", i.Ports.Manager), "ca", "")
	case "kube-scheduler":
		return i.ask(ctx, fmt.Sprintf("https://127.0.0.1:%d/readyz", i.Ports.Schedule), "ca", "")
	case "containerd":
		_, err := i.ctr(ctx, "version")
		return err
	case "kubelet":
		return i.ask(ctx, "https://"+i.nodeIP()+":10250/healthz", "ca", "apiserver-kubelet-client")
	case "kube-proxy":
		return i.ask(ctx, "http://"+i.nodeIP()+":10256/healthz", "ca", "")
	}
	return fmt.Errorf("nobody knows when %s is healthy", part)
}

// ask reads a URL as the holder of a client certificate, or as nobody, and wants a 200.
func (i *instance) ask(ctx context.Context, url, authority, certificate string) error {
	ca, err := os.ReadFile(i.pki(authority + ".crt"))
	if err != nil {
		return err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(ca) {
		return errors.New("the authority " + authority + " is damaged")
	}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(i.pki(certificate+".crt"), i.pki(certificate+".key"))
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %.300s", url, response.Status, body)
	}
	return nil
}

// awaitWhole waits until the cluster as a whole is as it was before parts of it were restarted.
func (i *instance) awaitWhole(ctx context.Context, begin time.Time, parts []string) error {
	client, err := i.client()
	if err != nil {
		return err
	}
	return await(ctx, "the cluster", 2*time.Minute, nil, func() error {
		if err := client.ready(ctx); err != nil || !i.Node {
			return err
		}
		if slices.Contains(parts, "kubelet") {
			if err := client.nodeReportedSince(ctx, i.nodeName(), begin); err != nil {
				return err
			}
		}
		return client.nodeReady(ctx, i.nodeName())
	})
}

// nodeReportedSince: what the node last said may be from before its kubelet was restarted.
func (c *apiClient) nodeReportedSince(ctx context.Context, name string, begin time.Time) error {
	var lease struct {
		Spec struct{ RenewTime time.Time }
	}
	if err := c.get(ctx, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+name, &lease); err != nil {
		return err
	}
	if lease.Spec.RenewTime.Before(begin) {
		return fmt.Errorf("node %s has not reported since %s", name, lease.Spec.RenewTime)
	}
	return nil
}
