"""Where images come from: generators and the targets asked of them."""
