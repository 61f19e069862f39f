"""Reading a Datastore kind: beside the client itself, on Google's emulators."""
