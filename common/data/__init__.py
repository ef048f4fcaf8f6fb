"""What the stages train on and are examined with: manifests, row reading, accounting and decontamination."""
