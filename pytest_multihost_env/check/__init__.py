"""What every host says about its environment, and where hosts differ."""
