// Command measure runs upstream's scheduler alone, over a cluster that is held in memory, and prints how many pods it binds a second:
// one line of JSON for each scenario. There is no API server: informers are fed from memory and a binding costs next to nothing
// (memory.go), events are dropped, nothing is rate-limited, and all else (profile, feature gates, parallelism, the share of nodes
// that is scored) is as upstream has it by default. scenarios.go says what the objects look like.
//
// The clock runs from the first binding to the last; for preemption it starts with the scheduler, since evictions come first. All
// pods wait in the queue before the scheduler starts.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler"
)

// figures is what is printed of a scenario.
type figures struct {
	Scenario      string  `json:"scenario"`
	Nodes         int     `json:"nodes"`
	Pods          int     `json:"pods"`
	PodsPerSecond float64 `json:"pods_per_second"`
	// CPUSeconds is what the process used from the scheduler's start to the last binding.
	CPUSeconds float64 `json:"cpu_seconds"`
	// Seconds is the time of that.
	Seconds float64 `json:"seconds"`
}

func main() {
	scenario := flag.String("scenario", "all", "one of "+strings.Join(names(), ", ")+", or all")
	nodes := flag.Int("nodes", 5000, "nodes")
	pods := flag.Int("pods", 0, "pods that wait; 0 is as many as the scenario has by itself")
	limit := flag.Duration("limit", 10*time.Minute, "how long a scenario may take")
	flag.Parse()
	klog.SetLogger(logr.Discard())
	chosen := []string{*scenario}
	if *scenario == "all" {
		chosen = names()
	}
	for _, name := range chosen {
		if !slices.Contains(names(), name) {
			log.Fatalf("no scenario %s", name)
		}
		measured, err := measure(name, *nodes, *pods, *limit)
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(measured); err != nil {
			log.Fatal(err)
		}
	}
}

func measure(name string, nodes, pods int, limit time.Duration) (figures, error) {
	made := scenarios[name](nodes, pods)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cluster := newMemory(made.objects, made.waiting)
	informers := scheduler.NewInformerFactory(cluster, 0)
	upstream, err := scheduler.New(ctx, cluster, informers, nil,
		func(string) events.EventRecorder { return &events.FakeRecorder{} })
	if err != nil {
		return figures{}, err
	}
	informers.Start(ctx.Done())
	informers.WaitForCacheSync(ctx.Done())
	if err := upstream.WaitForHandlersSync(ctx); err != nil {
		return figures{}, err
	}
	before, start := used(), time.Now()
	go upstream.Run(ctx)
	select {
	case <-cluster.done:
	case <-ctx.Done():
		return figures{}, fmt.Errorf("%d of %d pods are bound after %s", cluster.soFar(), made.waiting, limit)
	}
	first := cluster.first
	if made.fromStart {
		first = start
	}
	return figures{
		Scenario:      name,
		Nodes:         nodes,
		Pods:          made.waiting,
		PodsPerSecond: rounded(float64(made.waiting) / cluster.last.Sub(first).Seconds()),
		CPUSeconds:    rounded(used() - before),
		Seconds:       rounded(cluster.last.Sub(start).Seconds()),
	}, nil
}

// used is the processor time of the process so far, in seconds.
func used() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func rounded(value float64) float64 { return float64(int64(value*100+0.5)) / 100 }
