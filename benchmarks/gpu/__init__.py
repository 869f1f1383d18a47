"""What only a GPU can show, in one command: checks of every CUDA road, then a short benchmark. Proven on the CPU."""
