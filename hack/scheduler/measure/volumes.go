package main

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const className = "disk"

// withClaims gives each pod a claim of its own, of a class with the provisioner that waits for its first consumer.
func withClaims(nodes, pods int, provisioner string) cluster {
	made := clusterOf(nodes, orElse(pods, 3000), func(i int, pod *v1.Pod) {
		pod.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{
			PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprint("claim-", i)}}}}
	})
	made.objects = append(made.objects, &storage.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: className},
		Provisioner:       provisioner,
		VolumeBindingMode: ptr.To(storage.VolumeBindingWaitForFirstConsumer),
	})
	for i := range made.waiting {
		made.objects = append(made.objects, &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("claim-", i)},
			Spec: v1.PersistentVolumeClaimSpec{
				StorageClassName: ptr.To(className),
				AccessModes:      []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
				Resources:        v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}},
			},
			Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimPending},
		})
	}
	return made
}

func localVolumes(nodes, pods int) cluster {
	made := withClaims(nodes, orElse(pods, 20), "kubernetes.io/no-provisioner")
	for i := range nodes {
		volume := volumeOf(fmt.Sprint("volume-", i), fmt.Sprint("node-", i))
		volume.Status.Phase = v1.VolumeAvailable
		made.objects = append(made.objects, volume)
	}
	return made
}

// volumeOf is a volume that one node reaches.
func volumeOf(name, node string) *v1.PersistentVolume {
	reaches := v1.NodeSelectorTerm{MatchExpressions: []v1.NodeSelectorRequirement{
		{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{node}}}}
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1.PersistentVolumeSpec{
			StorageClassName:       className,
			AccessModes:            []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Capacity:               v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")},
			NodeAffinity:           &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{reaches}}},
			PersistentVolumeSource: v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: "/data"}},
		},
	}
}

// provisioned is the volume made for a claim on the node that the scheduler chose.
func provisioned(claim *v1.PersistentVolumeClaim) *v1.PersistentVolume {
	volume := volumeOf("provisioned-"+claim.Name, claim.Annotations["volume.kubernetes.io/selected-node"])
	volume.Spec.ClaimRef = &v1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
	volume.Status.Phase = v1.VolumeBound
	return volume
}
