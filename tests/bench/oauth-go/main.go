// Tokens by golang.org/x/oauth2: usage: oauth-go TOKEN-URL CA-FILE CLIENT-ID:SECRET COUNT IN-FLIGHT PREFIX FOLDER
// Each token is asked for with a resource of its own (PREFIX and a number), written to a file of its own, and renamed into
// place. Prints one line of JSON as token_floor does.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "oauth-go:", err)
		os.Exit(1)
	}
}

func cpu() float64 {
	var u syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func main() {
	if len(os.Args) != 8 {
		fmt.Fprintln(os.Stderr, "usage: oauth-go TOKEN-URL CA-FILE CLIENT-ID:SECRET COUNT IN-FLIGHT PREFIX FOLDER")
		os.Exit(2)
	}
	began := time.Now()
	count, err := strconv.Atoi(os.Args[4])
	must(err)
	flights, err := strconv.Atoi(os.Args[5])
	must(err)
	pem, err := os.ReadFile(os.Args[2])
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	id, secret, _ := strings.Cut(os.Args[3], ":")
	// A connection a goroutine is kept open: by default only two would be.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: flights}}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
	var next, good atomic.Int64
	var group sync.WaitGroup
	for range flights {
		group.Go(func() {
			for n := next.Add(1); n <= int64(count); n = next.Add(1) {
				config := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: os.Args[1],
					Scopes: []string{"pay.write"}, AuthStyle: oauth2.AuthStyleInHeader,
					EndpointParams: url.Values{"resource": {fmt.Sprintf("%s%d", os.Args[6], n)}}}
				token, err := config.Token(ctx)
				if err != nil {
					fmt.Fprintln(os.Stderr, "oauth-go:", err)
					continue
				}
				name := filepath.Join(os.Args[7], strconv.FormatInt(n, 10))
				must(os.WriteFile(name+".new", []byte(token.AccessToken), 0o600))
				must(os.Rename(name+".new", name))
				good.Add(1)
			}
		})
	}
	group.Wait()
	fmt.Printf("{\"count\": %d, \"wall_s\": %.4f, \"cpu_s\": %.4f}\n", good.Load(), time.Since(began).Seconds(), cpu())
	if good.Load() != int64(count) {
		os.Exit(1)
	}
}
