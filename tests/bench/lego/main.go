// Certificates by lego's library: usage: lego5 DIRECTORY-URL ACCOUNT-FILE HTTP-PORT COUNT IN-FLIGHT PREFIX
// Prints one line of JSON as acme_floor does. The account is made where ACCOUNT-FILE is not there yet; COUNT may be 0.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/certcrypto"
	"github.com/go-acme/lego/v5/certificate"
	"github.com/go-acme/lego/v5/lego"
	"github.com/go-acme/lego/v5/registration"
)

type user struct {
	key *ecdsa.PrivateKey
	reg *acme.ExtendedAccount
}

func (u *user) GetEmail() string                       { return "ops@example.org" }
func (u *user) GetRegistration() *acme.ExtendedAccount { return u.reg }
func (u *user) GetPrivateKey() crypto.Signer           { return u.key }

type stored struct {
	Key []byte
	Reg *acme.ExtendedAccount
}

// One listener for all flights: lego's own takes the port for one certificate at a time.
type answers struct{ byToken sync.Map }

func (a *answers) Present(_ context.Context, _, token, keyAuth string) error {
	a.byToken.Store(token, keyAuth)
	return nil
}

func (a *answers) CleanUp(_ context.Context, _, token, _ string) error {
	a.byToken.Delete(token)
	return nil
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if text, ok := a.byToken.Load(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]); ok {
		fmt.Fprint(w, text)
		return
	}
	http.NotFound(w, r)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "lego5:", err)
		os.Exit(1)
	}
}

func load(file string) *user {
	data, err := os.ReadFile(file)
	if err != nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		return &user{key: key}
	}
	var s stored
	must(json.Unmarshal(data, &s))
	key, err := x509.ParseECPrivateKey(s.Key)
	must(err)
	return &user{key: key, reg: s.Reg}
}

func cpu() float64 {
	var u syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: lego5 DIRECTORY-URL ACCOUNT-FILE HTTP-PORT COUNT IN-FLIGHT PREFIX")
		os.Exit(2)
	}
	ctx := context.Background()
	count, err := strconv.Atoi(os.Args[4])
	must(err)
	flights, err := strconv.Atoi(os.Args[5])
	must(err)
	who := load(os.Args[2])
	config := lego.NewConfig(who)
	config.CADirURL = os.Args[1]
	client, err := lego.NewClient(config)
	must(err)
	table := &answers{}
	must(client.Challenge.SetHTTP01Provider(table))
	go func() { must(http.ListenAndServe("127.0.0.1:"+os.Args[3], table)) }()
	if who.reg == nil {
		who.reg, err = client.Registration.Register(ctx, registration.RegisterOptions{TermsOfServiceAgreed: true})
		must(err)
		der, err := x509.MarshalECPrivateKey(who.key)
		must(err)
		data, err := json.Marshal(stored{Key: der, Reg: who.reg})
		must(err)
		must(os.WriteFile(os.Args[2], data, 0o600))
	}
	began, spent := time.Now(), cpu()
	var next, good atomic.Int64
	var group sync.WaitGroup
	for range flights {
		group.Go(func() {
			for n := next.Add(1); n <= int64(count); n = next.Add(1) {
				_, err := client.Certificate.Obtain(ctx, certificate.ObtainRequest{
					Domains: []string{fmt.Sprintf("%s-%d.example", os.Args[6], n)}, KeyType: certcrypto.EC256, Bundle: true})
				if err != nil {
					fmt.Fprintln(os.Stderr, "lego5:", err)
					continue
				}
				good.Add(1)
			}
		})
	}
	group.Wait()
	fmt.Printf("{\"count\": %d, \"wall_s\": %.4f, \"cpu_s\": %.4f}\n", good.Load(), time.Since(began).Seconds(), cpu()-spent)
	if good.Load() != int64(count) {
		os.Exit(1)
	}
}
