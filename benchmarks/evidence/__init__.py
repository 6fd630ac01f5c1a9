"""What sharing does, with controls: suites over ten paired seeds, and the page that is made from their results."""
