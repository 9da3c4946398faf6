"""What deploy_image.py knows of a cluster: how it is asked, and when the workload in it is ready."""
