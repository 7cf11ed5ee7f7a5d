// What many watches and many keep-alives cost clientv3: the counterpart of
// crates/client/examples/many.rs, with the same arguments and the same lines.
// tests/many.sh runs both.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func main() {
	number := func(at, otherwise int) int {
		if at < len(os.Args) {
			if n, err := strconv.Atoi(os.Args[at]); err == nil {
				return n
			}
		}
		return otherwise
	}
	watches, leases, seconds := number(1, 10_000), number(2, 100_000), number(3, 30)
	endpoints := os.Getenv("ETCDCTL_ENDPOINTS")
	if endpoints == "" {
		endpoints = "127.0.0.1:2379"
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(endpoints, ","), Logger: zap.NewNop()})
	check(err)
	defer c.Close()
	ctx := context.Background()
	report("idle")

	begun := time.Now()
	held := make([]clientv3.WatchChan, watches)
	thousands(watches, func(i int) {
		held[i] = c.Watch(ctx, fmt.Sprintf("many/%d", i), clientv3.WithCreatedNotify())
		<-held[i]
	})
	fmt.Printf("%d watches after %v\n", watches, time.Since(begun))
	report("watches")

	begun = time.Now()
	thousands(leases, func(int) {
		lease, err := c.Grant(ctx, 60)
		check(err)
		alive, err := c.KeepAlive(ctx, lease.ID)
		check(err)
		<-alive
		// Nobody reads on: clientv3 drops what is not read, and keeps the lease alive.
	})
	fmt.Printf("%d leases kept after %v\n", leases, time.Since(begun))
	report("leases")

	before := cpuSeconds()
	time.Sleep(time.Duration(seconds) * time.Second)
	fmt.Printf("%.3f s of processor in %d s\n", cpuSeconds()-before, seconds)
	report("kept")

	begun, before = time.Now(), cpuSeconds()
	for i := range min(watches, 1000) {
		_, err := c.Put(ctx, fmt.Sprintf("many/%d", i), "event")
		check(err)
	}
	for _, w := range held[:min(watches, 1000)] {
		<-w
	}
	fmt.Printf("1000 puts, each seen by its watch: %v, %.3f s of processor\n", time.Since(begun), cpuSeconds()-before)
	report("end")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// thousands calls f for each number, a thousand at a time.
func thousands(count int, f func(i int)) {
	for from := 0; from < count; from += 1000 {
		var wg sync.WaitGroup
		for i := from; i < min(from+1000, count); i++ {
			wg.Add(1)
			go func() { defer wg.Done(); f(i) }()
		}
		wg.Wait()
	}
}

func report(what string) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") {
			fmt.Printf("%s: %.3f s of processor, %s", what, cpuSeconds(), strings.ReplaceAll(line, "\t", " "))
		}
	}
}

// cpuSeconds is this process's processor time; the kernel counts hundredths.
func cpuSeconds() float64 {
	stat, _ := os.ReadFile("/proc/self/stat")
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	sum := 0.0
	for _, field := range fields[11:13] {
		ticks, _ := strconv.ParseFloat(field, 64)
		sum += ticks
	}
	return sum / 100
}
