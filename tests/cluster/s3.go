// The S3 server of a cluster: versitygw over a folder, with versioning and Object Lock.
//
// Serves TLS with a certificate of the cluster's own authority, on loopback and, when there is a
// node, on the address where pods reach this host. Keys are random per instance. It can also run
// without a cluster, for tests of storage alone.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"
)

const (
	s3Region = "us-east-1"
	s3Bucket = "kustody"
)

// s3Info is s3.json: how to reach the S3 server.
type s3Info struct {
	Endpoint  string `json:"endpoint"`
	Region    string `json:"region"`
	Bucket    string `json:"bucket"`
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
	CAFile    string `json:"ca_file"`
	DataDir   string `json:"data_dir"` // objects of the bucket as plain files, for tests that tamper
}

// s3Up starts the S3 server of a cluster, or on its own when there is no cluster of that name.
func s3Up(ctx context.Context, name string) error {
	if _, err := find(name); err != nil {
		return err
	}
	held, err := lock("cluster-" + name)
	if err != nil {
		return err
	}
	defer held.Close()
	i, err := find(name)
	if err != nil {
		return err
	}
	fresh := i == nil
	if fresh {
		if i, err = create(name, "", backendProcesses, defaultRelease, false); err != nil {
			return err
		}
	}
	if err := startS3(ctx, i); err != nil {
		if fresh {
			return errors.Join(err, teardown(i))
		}
		return errors.Join(err, i.stopS3())
	}
	fmt.Println(i.path("s3.json"))
	return nil
}

func s3Down(name string) error {
	held, err := lock("cluster-" + name)
	if err != nil {
		return err
	}
	defer held.Close()
	i, err := find(name)
	if err != nil || i == nil {
		return err
	}
	if _, err := i.info(); err != nil { // there is no cluster around it
		return teardown(i)
	}
	return i.stopS3()
}

func (i *instance) stopS3() error {
	if err := kill(i.ID, func(one process) bool { return one.Component == "s3" }); err != nil {
		return err
	}
	return errors.Join(os.Remove(i.path("s3.json")), os.RemoveAll(i.path("s3")))
}

// startS3 does nothing when the server is already up.
func startS3(ctx context.Context, i *instance) error {
	alive, err := components(i.ID)
	if err != nil {
		return err
	}
	var info s3Info
	if alive["s3"] != 0 && readJSON(i.path("s3.json"), &info) == nil {
		say("S3 is already up: %s", i.path("s3.json"))
		return nil
	}
	gateway, err := buildVersitygw(ctx)
	if err != nil {
		return err
	}
	if err := i.writePKI(); err != nil {
		return err
	}
	if info, err = i.newS3(); err != nil {
		return err
	}
	arguments := []string{"--cert", i.pki("s3.crt"), "--key", i.pki("s3.key"), "--region", s3Region, "--quiet"}
	for _, address := range i.s3Addresses() {
		arguments = append(arguments, "--port", fmt.Sprintf("%s:%d", address, i.Ports.S3))
	}
	arguments = append(arguments, "posix", "--versioning-dir", i.path("s3", "versions"), i.path("s3", "data"))
	keys := []string{"ROOT_ACCESS_KEY=" + info.AccessKey, "ROOT_SECRET_KEY=" + info.SecretKey}
	server, err := i.start("s3", keys, gateway, arguments...)
	if err != nil {
		return err
	}
	client, err := i.s3Client()
	if err != nil {
		return err
	}
	err = await(ctx, "the S3 server", time.Minute, []*component{server}, func() error {
		return info.createBucket(ctx, client)
	})
	if err != nil {
		return err
	}
	say("S3 is up: %s, bucket %s", info.Endpoint, info.Bucket)
	return writeJSON(i.path("s3.json"), info, 0o600)
}

// s3Addresses lists where the server listens; the last one is the one to use.
func (i *instance) s3Addresses() []string {
	if i.Node && i.Backend == backendProcesses {
		return []string{"127.0.0.1", i.hostIP()}
	}
	return []string{"127.0.0.1"}
}

func (i *instance) newS3() (s3Info, error) {
	random := make([]byte, 30)
	if _, err := rand.Read(random); err != nil {
		return s3Info{}, err
	}
	for _, folder := range []string{"data", "versions"} {
		if err := os.MkdirAll(i.path("s3", folder), 0o700); err != nil {
			return s3Info{}, err
		}
	}
	addresses := i.s3Addresses()
	return s3Info{
		Endpoint: fmt.Sprintf("https://%s:%d", addresses[len(addresses)-1], i.Ports.S3), Region: s3Region, Bucket: s3Bucket,
		AccessKey: "test" + hex.EncodeToString(random[:8]), SecretKey: hex.EncodeToString(random[8:]),
		CAFile: i.pki("ca.crt"), DataDir: i.path("s3", "data", s3Bucket),
	}, nil
}

func (i *instance) s3Client() (*http.Client, error) {
	ca, err := os.ReadFile(i.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the cluster's authority is damaged")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return &http.Client{Transport: transport, Timeout: 5 * time.Second}, nil
}

// createBucket makes the bucket with Object Lock, which switches versioning on too. A bucket that
// exists already is fine.
func (s s3Info) createBucket(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, s.Endpoint+"/"+s.Bucket, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("x-amz-bucket-object-lock-enabled", "true")
	s.sign(request, time.Now())
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusConflict {
		return fmt.Errorf("create bucket: %s: %s", response.Status, body)
	}
	return nil
}

// sign adds an AWS Signature Version 4 to a request without a body. Every header that is set is
// signed; a query may have keys without values, as S3's sub-resources do.
func (s s3Info) sign(request *http.Request, now time.Time) {
	empty := sha256.Sum256(nil)
	payload := hex.EncodeToString(empty[:])
	stamp := now.UTC().Format("20060102T150405Z")
	request.Header.Set("x-amz-date", stamp)
	request.Header.Set("x-amz-content-sha256", payload)
	lines := []string{"host:" + request.URL.Host}
	for name := range request.Header {
		lines = append(lines, strings.ToLower(name)+":"+request.Header.Get(name))
	}
	sort.Strings(lines)
	names := make([]string, 0, len(lines))
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ":")
		names = append(names, name)
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{request.Method, request.URL.EscapedPath(), request.URL.Query().Encode(),
		strings.Join(lines, "\n") + "\n", signed, payload}, "\n")
	scope := stamp[:8] + "/" + s.Region + "/s3/aws4_request"
	digest := sha256.Sum256([]byte(canonical))
	toSign := fmt.Sprintf("AWS4-HMAC-SHA256\n%s\n%s\n%x", stamp, scope, digest)
	key := mac(mac(mac(mac([]byte("AWS4"+s.SecretKey), stamp[:8]), s.Region), "s3"), "aws4_request")
	request.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x", s.AccessKey, scope, signed, mac(key, toSign)))
}

func mac(key []byte, text string) []byte {
	sum := hmac.New(sha256.New, key)
	_, _ = sum.Write([]byte(text)) // a hash never fails
	return sum.Sum(nil)
}
