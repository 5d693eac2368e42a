"""Reading adapters of the online stores."""
