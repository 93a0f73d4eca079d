package main

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
)

func (c coreClient) PersistentVolumes() core.PersistentVolumeInterface {
	return volumeClient{c.CoreV1Interface.PersistentVolumes(), c.memory}
}

func (c coreClient) PersistentVolumeClaims(namespace string) core.PersistentVolumeClaimInterface {
	return claimClient{c.CoreV1Interface.PersistentVolumeClaims(namespace), c.memory}
}

type volumeClient struct {
	core.PersistentVolumeInterface
	memory *memory
}

func (c volumeClient) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return c.memory.volumes, nil
}

// Update is the scheduler's choice of a volume that is there for a claim; the two are bound at once.
func (c volumeClient) Update(_ context.Context, volume *v1.PersistentVolume, _ metav1.UpdateOptions) (*v1.PersistentVolume, error) {
	c.memory.lock.Lock()
	defer c.memory.lock.Unlock()
	bound := *volume
	bound.Status.Phase = v1.VolumeBound
	c.memory.stamp(&bound)
	c.memory.volumes.events <- watch.Event{Type: watch.Modified, Object: &bound}
	claim := c.memory.claimNow[bound.Spec.ClaimRef.Namespace+"/"+bound.Spec.ClaimRef.Name]
	c.memory.bindClaim(claim, bound.Name)
	return &bound, nil
}

type claimClient struct {
	core.PersistentVolumeClaimInterface
	memory *memory
}

func (c claimClient) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return c.memory.claims, nil
}

// Update is the scheduler's choice of a node to provision for; the volume is there at once.
func (c claimClient) Update(_ context.Context, claim *v1.PersistentVolumeClaim, _ metav1.UpdateOptions) (*v1.PersistentVolumeClaim, error) {
	c.memory.lock.Lock()
	defer c.memory.lock.Unlock()
	chosen := *claim
	c.memory.stamp(&chosen)
	volume := provisioned(&chosen)
	c.memory.stamp(volume)
	c.memory.volumes.events <- watch.Event{Type: watch.Added, Object: volume}
	c.memory.bindClaim(&chosen, volume.Name)
	return &chosen, nil
}

// bindClaim tells of a claim that is bound to a volume. The lock is held.
func (m *memory) bindClaim(claim *v1.PersistentVolumeClaim, volume string) {
	bound := *claim
	bound.Annotations = maps.Clone(claim.Annotations)
	metav1.SetMetaDataAnnotation(&bound.ObjectMeta, "pv.kubernetes.io/bind-completed", "yes")
	bound.Spec.VolumeName = volume
	bound.Status.Phase = v1.ClaimBound
	m.stamp(&bound)
	m.claimNow[bound.Namespace+"/"+bound.Name] = &bound
	m.claims.events <- watch.Event{Type: watch.Modified, Object: &bound}
}
