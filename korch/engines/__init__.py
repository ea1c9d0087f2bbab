"""Pure: words for Docker and Podman, and what their answers mean."""
