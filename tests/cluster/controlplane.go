// etcd, API server, controller manager and scheduler: their flags, and how to know they serve.
//
// They run as plain processes of the calling user in the host's network, so that the API server
// reaches webhooks on this host's loopback and tests need no root.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// auditPolicy logs who did what for every request, once, without bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

func (i *instance) auditLog() string { return filepath.Join(i.LogDir, "audit.log") }

func (i *instance) pki(name string) string { return i.path("pki", name) }

func (i *instance) startEtcd(program string) (*component, error) {
	client := fmt.Sprintf("https://127.0.0.1:%d", i.Ports.Etcd)
	peer := fmt.Sprintf("https://127.0.0.1:%d", i.Ports.EtcdPeer)
	return i.start("etcd", nil, program,
		"--name=etcd", "--data-dir="+i.path("etcd"), "--log-level=warn",
		"--unsafe-no-fsync", // a test cluster does not outlive a power cut
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=etcd="+peer,
		"--client-cert-auth", "--trusted-ca-file="+i.pki("etcd-ca.crt"), "--cert-file="+i.pki("etcd.crt"), "--key-file="+i.pki("etcd.key"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file="+i.pki("etcd-ca.crt"), "--peer-cert-file="+i.pki("etcd.crt"), "--peer-key-file="+i.pki("etcd.key"))
}

func (i *instance) startAPIServer(hyperkube string, extra []string) (*component, error) {
	if err := writeFile(i.path("audit-policy.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return nil, err
	}
	arguments := []string{"kube-apiserver",
		fmt.Sprintf("--secure-port=%d", i.Ports.API), "--bind-address=" + i.apiAddress(), "--advertise-address=" + i.hostIP(),
		"--cert-dir=" + i.pki(""), "--tls-cert-file=" + i.pki("apiserver.crt"), "--tls-private-key-file=" + i.pki("apiserver.key"),
		"--client-ca-file=" + i.pki("ca.crt"),
		fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", i.Ports.Etcd), "--etcd-cafile=" + i.pki("etcd-ca.crt"),
		"--etcd-certfile=" + i.pki("apiserver-etcd-client.crt"), "--etcd-keyfile=" + i.pki("apiserver-etcd-client.key"),
		"--kubelet-certificate-authority=" + i.pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + i.pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + i.pki("apiserver-kubelet-client.key"),
		"--requestheader-client-ca-file=" + i.pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + i.pki("front-proxy-client.crt"), "--proxy-client-key-file=" + i.pki("front-proxy-client.key"),
		"--enable-aggregator-routing=true", // webhook Services are reached by endpoint
		"--service-cluster-ip-range=" + i.serviceCIDR(),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + i.pki("service-account.pub"), "--service-account-signing-key-file=" + i.pki("service-account.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--audit-policy-file=" + i.path("audit-policy.yaml"), "--audit-log-path=" + i.auditLog(), "--audit-log-maxsize=200", "--audit-log-maxbackup=2",
		"--profiling=false",
		"--shutdown-delay-duration=0s",
	}
	if !i.Node {
		// Nothing routes to the advertised address without a node, so no endpoint may claim it.
		arguments = append(arguments, "--endpoint-reconciler-type=none")
	}
	if i.WebhookIdentity {
		file, err := i.writeWebhookIdentity()
		if err != nil {
			return nil, err
		}
		arguments = append(arguments, "--admission-control-config-file="+file)
	}
	return i.start("kube-apiserver", nil, hyperkube, append(arguments, extra...)...)
}

// writeWebhookIdentity has the API server present its certificate to every validating and mutating
// webhook, wherever that is.
func (i *instance) writeWebhookIdentity() (string, error) {
	kubeconfig := object{
		"apiVersion": "v1", "kind": "Config",
		"users": []object{{"name": "*", "user": object{"client-certificate": i.pki("webhook.crt"), "client-key": i.pki("webhook.key")}}},
	}
	plugin := object{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
		"kubeConfigFile": i.path("webhook.kubeconfig"),
	}
	admission := object{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
		"plugins": []object{
			{"name": "ValidatingAdmissionWebhook", "path": i.path("webhooks.json")},
			{"name": "MutatingAdmissionWebhook", "path": i.path("webhooks.json")},
		},
	}
	return i.path("admission.json"), errors.Join(
		writeJSON(i.path("webhook.kubeconfig"), kubeconfig, 0o600),
		writeJSON(i.path("webhooks.json"), plugin, 0o600),
		writeJSON(i.path("admission.json"), admission, 0o600),
	)
}

func (i *instance) startControllerManager(hyperkube string) (*component, error) {
	return i.start("kube-controller-manager", nil, hyperkube, "kube-controller-manager",
		"--kubeconfig="+i.path("controller-manager.kubeconfig"), "--leader-elect=false", "--profiling=false",
		fmt.Sprintf("--secure-port=%d", i.Ports.Manager), "--bind-address=127.0.0.1", // only its health is of use there
		"--tls-cert-file="+i.pki("controller-manager.crt"), "--tls-private-key-file="+i.pki("controller-manager.key"),
		"--kube-api-qps=1000", "--kube-api-burst=2000", // the default throttles the start by seconds
		"--use-service-account-credentials", "--service-account-private-key-file="+i.pki("service-account.key"), "--root-ca-file="+i.pki("ca.crt"),
		"--cluster-signing-cert-file="+i.pki("ca.crt"), "--cluster-signing-key-file="+i.pki("ca.key"),
		"--cluster-cidr="+i.podCIDR(), "--service-cluster-ip-range="+i.serviceCIDR(), "--allocate-node-cidrs=false")
}

func (i *instance) startScheduler(hyperkube string) (*component, error) {
	return i.start("kube-scheduler", nil, hyperkube, "kube-scheduler",
		"--kubeconfig="+i.path("scheduler.kubeconfig"), "--leader-elect=false", "--profiling=false",
		fmt.Sprintf("--secure-port=%d", i.Ports.Schedule), "--bind-address=127.0.0.1",
		"--tls-cert-file="+i.pki("scheduler.crt"), "--tls-private-key-file="+i.pki("scheduler.key"),
		"--kube-api-qps=1000", "--kube-api-burst=2000")
}

// apiClient talks to the API server as the cluster's administrator.
type apiClient struct {
	server string
	http   *http.Client
}

func (i *instance) client() (*apiClient, error) {
	ca, err := os.ReadFile(i.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(i.pki("admin.crt"), i.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the cluster's authority is damaged")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	return &apiClient{server: i.server(), http: &http.Client{Transport: transport, Timeout: 5 * time.Second}}, nil
}

// get reads a path; into may be nil.
func (c *apiClient) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %.200s", path, response.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

func (c *apiClient) ready(ctx context.Context) error { return c.get(ctx, "/readyz", nil) }

// serviceAccountReady: pods cannot be created before this account exists.
func (c *apiClient) serviceAccountReady(ctx context.Context) error {
	return c.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
}

func (c *apiClient) nodeReady(ctx context.Context, name string) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key, Effect string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get(ctx, "/api/v1/nodes/"+name, &node); err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("node %s is tainted: %v", name, node.Spec.Taints)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", name, condition.Message)
		}
	}
	return fmt.Errorf("node %s says nothing about readiness yet", name)
}
