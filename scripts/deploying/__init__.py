"""The parts of `deploy_image.py`: kubectl, the images in kustomizations, and when a workload is ready."""
