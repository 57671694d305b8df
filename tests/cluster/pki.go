// The certificates of one cluster: four authorities, a serving certificate per server, a client
// certificate per component, and kubeconfigs that carry them.
//
// Nothing verifies less than a real cluster would, and no component uses a static token. Keys are
// made per instance and die with it.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strconv"
	"time"
)

const certificateLife = 365 * 24 * time.Hour

// An authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

// A leaf describes one certificate to be signed.
type leaf struct {
	name   string // file name without extension
	common string
	groups []string
	hosts  []string // serving names and addresses; empty for a client certificate
}

// writePKI makes every key and certificate of the instance that does not exist yet.
func (i *instance) writePKI() error {
	if _, err := os.Stat(i.path("pki", "complete")); err == nil {
		return nil
	}
	if err := os.MkdirAll(i.path("pki"), 0o700); err != nil {
		return err
	}
	for name, leaves := range i.leaves() {
		signer, err := i.newAuthority(name)
		if err != nil {
			return err
		}
		for _, one := range leaves {
			if err := i.writeLeaf(signer, one); err != nil {
				return fmt.Errorf("certificate %s: %w", one.name, err)
			}
		}
	}
	if err := i.writeServiceAccountKey(); err != nil {
		return err
	}
	return writeFile(i.path("pki", "complete"), nil, 0o600)
}

// leaves lists what each authority signs.
func (i *instance) leaves() map[string][]leaf {
	local := []string{"127.0.0.1", "localhost"}
	api := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		i.serviceIP(), i.hostIP()}, local...)
	return map[string][]leaf{
		"ca": {
			{name: "apiserver", common: "kube-apiserver", hosts: api},
			{name: "kubelet", common: "system:node:" + i.nodeName(), groups: []string{"system:nodes"}, hosts: []string{i.nodeName(), i.nodeIP()}},
			{name: "s3", common: "s3", hosts: append([]string{i.hostIP()}, local...)},
			{name: "admin", common: "kubernetes-admin", groups: []string{"system:masters"}},
			{name: "apiserver-kubelet-client", common: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
			{name: "controller-manager", common: "system:kube-controller-manager", hosts: local},
			{name: "scheduler", common: "system:kube-scheduler", hosts: local},
			{name: "node", common: "system:node:" + i.nodeName(), groups: []string{"system:nodes"}},
			{name: "proxy", common: "system:kube-proxy"},
		},
		"front-proxy-ca": {{name: "front-proxy-client", common: "front-proxy-client"}},
		// Whom webhooks may know the API server by: an authority of its own, so that nobody else's certificate will do.
		"webhook-ca": {
			{name: "webhook", common: "kube-apiserver"},
			{name: "webhook-stranger", common: "stranger"},
		},
		"etcd-ca": {
			{name: "etcd", common: "etcd", hosts: local},
			{name: "apiserver-etcd-client", common: "kube-apiserver-etcd-client"},
		},
	}
}

func (i *instance) newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := certificateTemplate(pkix.Name{CommonName: "kustody-test-" + i.Name + "-" + name})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	signer := &authority{certificate: certificate, key: key, pem: pemBlock("CERTIFICATE", der)}
	return signer, i.writePair(name, signer.pem, key)
}

// loadAuthority reads an authority back, to sign a certificate later.
func (i *instance) loadAuthority(name string) (*authority, error) {
	certificatePEM, err := os.ReadFile(i.path("pki", name+".crt"))
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(i.path("pki", name+".key"))
	if err != nil {
		return nil, err
	}
	certificateBlock, _ := pem.Decode(certificatePEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certificateBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("authority %s of cluster %s is damaged", name, i.Name)
	}
	certificate, err1 := x509.ParseCertificate(certificateBlock.Bytes)
	key, err2 := parsePrivate(keyBlock)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &authority{certificate: certificate, key: key, pem: certificatePEM}, nil
}

func parsePrivate(block *pem.Block) (crypto.Signer, error) {
	if block.Type == "RSA PRIVATE KEY" { // what kubeadm, hence kind, writes
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

// sign makes a key and a certificate for it.
func (a *authority) sign(one leaf) (certificate []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	template, err := certificateTemplate(pkix.Name{CommonName: one.common, Organization: one.groups})
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(one.hosts) > 0 { // etcd presents its serving certificate to itself as a client too
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range one.hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	return pemBlock("CERTIFICATE", der), key, nil
}

func (i *instance) writeLeaf(signer *authority, one leaf) error {
	certificate, key, err := signer.sign(one)
	if err != nil {
		return err
	}
	return i.writePair(one.name, certificate, key)
}

func (i *instance) writePair(name string, certificate []byte, key *ecdsa.PrivateKey) error {
	private, err := privatePEM(key)
	if err != nil {
		return err
	}
	if err := writeFile(i.path("pki", name+".key"), private, 0o600); err != nil {
		return err
	}
	return writeFile(i.path("pki", name+".crt"), certificate, 0o644)
}

// writeServiceAccountKey makes the RSA pair that signs service account tokens (RS256, what every
// client library reads).
func (i *instance) writeServiceAccountKey() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	private, err := privatePEM(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writeFile(i.path("pki", "service-account.key"), private, 0o600); err != nil {
		return err
	}
	return writeFile(i.path("pki", "service-account.pub"), pemBlock("PUBLIC KEY", public), 0o644)
}

func certificateTemplate(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife)}, nil
}

func privatePEM(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pemBlock("PRIVATE KEY", der), err
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeKubeconfig writes NAME.kubeconfig for a client certificate of the instance.
func (i *instance) writeKubeconfig(name string) error {
	certificate, err1 := os.ReadFile(i.path("pki", name+".crt"))
	key, err2 := os.ReadFile(i.path("pki", name+".key"))
	ca, err3 := os.ReadFile(i.path("pki", "ca.crt"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	return writeFile(i.path(name+".kubeconfig"), kubeconfigText(i.Name, name, i.server(), ca, certificate, key), 0o600)
}

// kubeconfigFor returns the admin kubeconfig, or one with a fresh certificate for another user.
func kubeconfigFor(i *instance, user string, groups []string) ([]byte, error) {
	if user == "" {
		if len(groups) > 0 {
			return nil, errors.New("--group needs --user")
		}
		return os.ReadFile(i.path("admin.kubeconfig"))
	}
	info, err := i.info()
	if err != nil {
		return nil, err
	}
	name := "ca"
	if i.Backend == backendKind {
		name = "kind-ca"
	}
	signer, err := i.loadAuthority(name)
	if err != nil {
		return nil, err
	}
	certificate, key, err := signer.sign(leaf{common: user, groups: groups})
	if err != nil {
		return nil, err
	}
	private, err := privatePEM(key)
	if err != nil {
		return nil, err
	}
	return kubeconfigText(i.Name, user, info.Server, signer.pem, certificate, private), nil
}

// kubeconfigText is JSON where a name is quoted, which every YAML reader takes.
func kubeconfigText(cluster, user, server string, ca, certificate, key []byte) []byte {
	encode := base64.StdEncoding.EncodeToString
	quoted, err := json.Marshal(user)
	if err != nil {
		quoted = []byte(strconv.Quote(user))
	}
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[3]s
    certificate-authority-data: %[4]s
users:
- name: %[2]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[2]s
current-context: %[1]s
`, cluster, quoted, server, encode(ca), encode(certificate), encode(key))
}
